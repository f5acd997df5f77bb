#include "npu_backend.h"

#include <algorithm>
#include <cstdlib>

#include "core/errors.h"
#include "litert_backend.h"
#include "npu_files.h"

namespace edgevit::npu {

namespace fs = std::filesystem;

namespace {

constexpr const char* kFolderVariable = "EDGEVIT_LITERT_DISPATCH_DIR";

// Of the phone, or the one that was named. Raises ToolMissing where none is known or the artifact
// has no program for it.
std::string choose_soc(const Manifest& manifest, const BackendOptions& options,
                       const Vendor& vendor) {
    const std::vector<std::string> socs = socs_of(manifest);
    std::string soc = runtime_option(options.runtime_options, "soc", soc_of_this_machine());
    if (soc.empty()) {
        throw ToolMissing(
            manifest.artifact_path().string() + ": needs the phone: it is compiled for " +
            vendor.npu + " of " + listed(socs) +
            ", and this machine tells no SoC (ro.soc.model, Android 12 and later). "
            "Run it there: `edgevit validate " +
            manifest.folder.string() + " --device adb:SERIAL`, with -O soc=" + socs.front() +
            " where the phone tells none. Here runs the artifact of --target "
            "tflite, which portable.tflite is");
    }
    if (std::find(socs.begin(), socs.end(), soc) == socs.end()) {
        throw ToolMissing(manifest.artifact_path().string() + ": has no program for the SoC " +
                          soc + "; it has " + listed(socs) + ": compile it with --soc " + soc +
                          " too, or run the artifact of --target tflite");
    }
    return soc;
}

std::string dispatch_folder(const BackendOptions& options, const Vendor& vendor) {
    const char* variable = std::getenv(kFolderVariable);
    const std::string folder = runtime_option(options.runtime_options, "dispatch_dir",
                                              variable == nullptr ? "" : variable);
    const std::string what = std::string(vendor.dispatch) + ", by which LiteRT reaches " +
                             vendor.npu + " (beside it must lie " + vendor.libraries + ")";
    if (folder.empty()) {
        throw ToolMissing("the folder of " + what + " is not named: name it with -O " +
                          "dispatch_dir=DIR or the environment variable " + kFolderVariable);
    }
    if (!fs::is_regular_file(fs::path(folder) / vendor.dispatch)) {
        throw ToolMissing(
            folder + ": holds no " + what +
            "; it comes with LiteRT's NPU runtime libraries for Android, which an app "
            "has to unpack (packaging.jniLibs.useLegacyPackaging = true)");
    }
    return folder;
}

}  // namespace

const std::vector<RuntimeOption>& runtime_options() {
    static const std::vector<RuntimeOption> options = {
        {"accelerator", "the one thing that runs the artifact (default npu)", {"npu"}},
        {"soc", "the SoC whose program is run (default: what Android says this phone has)"},
        {"dispatch_dir", std::string("the folder of LiteRT's dispatch library for the NPU "
                                     "(default: the environment variable ") +
                             kFolderVariable + ")"}};
    return options;
}

std::unique_ptr<Backend> open_npu(const Manifest& manifest, const BackendOptions& options,
                                  const Vendor& vendor) {
    // Of a packed artifact the one program is a file, given as bytes or not.
    const bool is_file =
        options.artifact.data != nullptr || fs::is_regular_file(manifest.artifact_path());
    const std::vector<std::string> socs = socs_of(manifest);
    if (is_file && socs.size() != 1) {
        throw InputError("manifest.json: options.soc names " + listed(socs) +
                         "; one file is a program for one SoC");
    }
    if (!is_file) {  // before anything is missing: a wrong folder stays wrong on the phone
        program_for(manifest, vendor.manufacturer, socs.front());
    }
    const std::string soc = choose_soc(manifest, options, vendor);
    litert::LiteRtSettings settings;
    settings.file =
        is_file ? manifest.artifact_path() : program_for(manifest, vendor.manufacturer, soc);
    settings.model = {litert::kNpu, litert::Operators::dispatched_too,
                      dispatch_folder(options, vendor)};
    settings.device = std::string(vendor.manufacturer) + " " + soc;
    settings.advice = std::string("the phone is not a ") + soc + ", a library of " + vendor.npu +
                      " is missing or of another version than the program's, or the driver " +
                      "refused it; nothing was run on the CPU instead";
    return litert::open_litert(manifest, options, settings);
}

}  // namespace edgevit::npu
