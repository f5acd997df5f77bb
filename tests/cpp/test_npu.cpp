// What a phone's NPU needs before LiteRT is asked: the folder of programs, the SoC, the library.
#include <doctest/doctest.h>

#include "backend.h"
#include "npu_files.h"
#include "support.h"

using namespace edgevit;
using namespace edgevit::test;

namespace {

// A stand-in of a folder that `edgevit compile --target qnn` writes: its files hold their names.
class Folder {
  public:
    explicit Folder(const std::vector<std::string>& files, const std::string& socs = "A1,B2") {
        for (const std::string& file : files) {
            write_text(folder_.path() / "model.litert" / file, file);
        }
        json manifest = tiny_manifest();
        manifest["target"] = "qnn";
        manifest["options"]["soc"] = socs;
        manifest["artifact"]["file"] = "model.litert";
        manifest["artifact"]["sha256"] = sha256_tree(folder_.path() / "model.litert");
        write_text(folder_.path() / "manifest.json", manifest.dump());
    }

    Manifest manifest() const { return load_artifact(folder_.path()); }
    fs::path path() const { return folder_.path(); }

    std::unique_ptr<Backend> open(const RuntimeOptions& options) const {
        BackendOptions given;
        given.runtime_options = options;
        return open_backend("qnn", manifest(), given);
    }

  private:
    TemporaryFolder folder_;
};

const std::vector<std::string> kWhole = {"portable.tflite", "Qualcomm_A1.tflite",
                                         "Qualcomm_B2.tflite"};

}  // namespace

TEST_CASE("the SoCs of an NPU's artifact are its manifest's") {
    CHECK(npu::socs_of(Folder(kWhole).manifest()) == std::vector<std::string>{"A1", "B2"});
    for (const std::string socs : {"", "A1,", ",A1", "A1,,B2"}) {
        CAPTURE(socs);
        const Folder folder(kWhole, socs);
        CHECK(contains(message_of<InputError>([&] { npu::socs_of(folder.manifest()); }),
                       "options.soc must name the SoCs"));
    }
}

TEST_CASE("each SoC has a program of its own") {
    const Folder folder(kWhole);
    for (const std::string soc : {"A1", "B2"}) {
        CHECK(npu::program_for(folder.manifest(), "Qualcomm", soc) ==
              folder.path() / "model.litert" / ("Qualcomm_" + soc + ".tflite"));
    }
}

TEST_CASE("a folder that is not its manifest's is refused, on any machine") {
    const auto refused = [](const std::vector<std::string>& files) {
        const Folder folder(files);
        return message_of<InputError>([&] { folder.open({{"soc", "A1"}}); });
    };
    CHECK(contains(refused({"portable.tflite", "Qualcomm_A1.tflite", "Qualcomm_B2.tflite",
                            "Qualcomm_C3.tflite"}),
                   "Qualcomm_C3.tflite: is none of the artifact's files: the manifest names the "
                   "SoCs A1, B2"));
    CHECK(contains(refused({"portable.tflite", "MediaTek_A1.tflite", "Qualcomm_B2.tflite"}),
                   "MediaTek_A1.tflite: is none of the artifact's files"));
    CHECK(contains(refused({"portable.tflite", "Qualcomm_B2.tflite"}),
                   "Qualcomm_A1.tflite: is missing"));
}

TEST_CASE("without the phone an NPU's artifact says what it needs") {
    const Folder folder(kWhole);
    const auto missing = [&](const RuntimeOptions& options) {
        return message_of<ToolMissing>([&] { folder.open(options); });
    };
    const std::string message = missing({});
    CHECK(contains(message,
                   "model.litert: needs the phone: it is compiled for Qualcomm's Hexagon "
                   "NPU (HTP) of A1, B2"));
    CHECK(contains(message, "edgevit validate " + folder.path().string() + " --device adb:SERIAL"));
    CHECK(contains(missing({{"soc", "C3"}}),
                   "has no program for the SoC C3; it has A1, B2: compile it with --soc C3 too"));
    CHECK(contains(missing({{"soc", "A1"}}),
                   "libLiteRtDispatch_Qualcomm.so, by which LiteRT reaches Qualcomm's Hexagon NPU "
                   "(HTP) (beside it must lie libQnnHtp.so"));
    CHECK(contains(missing({{"soc", "A1"}}), "EDGEVIT_LITERT_DISPATCH_DIR"));
    CHECK(contains(missing({{"soc", "A1"}, {"dispatch_dir", folder.path().string()}}),
                   folder.path().string() + ": holds no libLiteRtDispatch_Qualcomm.so"));
    write_text(folder.path() / "libLiteRtDispatch_Qualcomm.so", "");
    CHECK(contains(missing({{"soc", "A1"}, {"dispatch_dir", folder.path().string()}}), "LiteRT"));
}

TEST_CASE("an NPU's artifact is not run on anything else") {
    const Folder folder(kWhole);
    for (const std::string accelerator : {"cpu", "gpu"}) {
        CHECK(contains(
            message_of<InputError>([&] { folder.open({{"accelerator", accelerator}}); }),
            "accelerator is '" + accelerator + "'; the qnn back-end takes accelerator=npu"));
    }
}

TEST_CASE("one file is a program for one SoC, as bytes and in a folder") {
    const TemporaryFolder folder;
    json packed = tiny_manifest();
    const auto refused = [&](const std::string& socs) {
        packed["options"]["soc"] = socs;
        write_artifact(folder.path(), packed, read_text(EDGEVIT_TEST_DATA "/tiny.tflite"));
        return message_of<Error>([&] { open_backend("qnn", load_artifact(folder.path()), {}); });
    };
    CHECK(contains(refused("A1,B2"), "names A1, B2; one file is a program for one SoC"));
    CHECK(contains(refused("A1"), "needs the phone"));
    const Bytes program = read_file(EDGEVIT_TEST_DATA "/npu.tflite", 1 << 20);
    Manifest manifest = Folder(kWhole).manifest();
    BackendOptions options;
    options.artifact = program;
    const auto open = [&] { open_backend("qnn", manifest, options); };
    CHECK(
        contains(message_of<InputError>(open), "names A1, B2; one file is a program for one SoC"));
    manifest.options["soc"] = "A1";
    options.runtime_options = {{"soc", "B2"}};
    CHECK(contains(message_of<ToolMissing>(open), "has no program for the SoC B2; it has A1"));
}
