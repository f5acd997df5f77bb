// The LiteRT back-end on a real, tiny INT8 model (make_tiny_tflite.py).
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "backend.h"
#include "session.h"
#include "support.h"

using namespace edgevit;
using namespace edgevit::test;

namespace {

std::unique_ptr<Backend> open_with(const TemporaryFolder& folder, const json& manifest,
                                   const std::string& model) {
    write_artifact(folder.path(), manifest, model);
    return open_backend("tflite", load_artifact(folder.path()), {1, ""});
}

std::string tiny_model() { return read_text(EDGEVIT_TEST_DATA "/tiny.tflite"); }

Bytes answer_to(Backend& backend, std::uint8_t seed) {
    Bytes input(8 * 8 * 3);
    for (std::size_t i = 0; i < input.size(); ++i) {
        input[i] = static_cast<std::uint8_t>(i * 7 + seed * 31);
    }
    backend.set_input(input);
    backend.invoke();
    Bytes output(4);
    backend.get_output(0, output.data(), output.size());
    return output;
}

}  // namespace

TEST_CASE("LiteRT runs the model, the same for one thread and for two") {
    const TemporaryFolder folder;
    const auto backend = open_with(folder, tiny_manifest(), tiny_model());
    const auto two = open_backend("tflite", load_artifact(folder.path()), {2, ""});
    CHECK(backend->inputs().front().describe() == "int8 [1, 8, 8, 3] scale 0.0078125 zero-point 0");
    bool varied = false;
    for (std::uint8_t seed = 0; seed < 5; ++seed) {
        const Bytes answer = answer_to(*backend, seed);
        CHECK(answer == answer_to(*two, seed));
        varied = varied || answer != answer_to(*backend, static_cast<std::uint8_t>(seed + 1));
    }
    CHECK(varied);
}

TEST_CASE("the delegated ops are counted: all but GELU, in two partitions") {
    const TemporaryFolder folder;
    const auto backend = open_with(folder, tiny_manifest(), tiny_model());
    const OpReport report = backend->profile(Bytes(8 * 8 * 3), 3);
    CHECK(report.total == 7);
    CHECK(report.delegated == 6);
    CHECK(report.partitions == 2);
    CHECK(report.not_delegated == std::map<std::string, std::int64_t>{{"GELU", 1}});
    REQUIRE(report.times.size() == 7);
    CHECK(report.times[0].runs == 3);
    const RuntimeFacts facts = backend->facts();
    CHECK(facts.name == "LiteRT");
    CHECK(facts.fully_accelerated == false);
    CHECK(facts.library_file == "libLiteRt.so");
}

TEST_CASE("outputs of rank 1, 2, 4 and 5 are those of their names") {
    const TemporaryFolder folder;
    const std::string model = read_text(EDGEVIT_TEST_DATA "/outputs.tflite");
    json manifest = tiny_manifest();
    manifest["artifact"]["sha256"] = sha256_hex(model);
    const json logits = output_json("logits", {1, 4}, "int8", 0.00390625, 0),
               map = output_json("map", {1, 4, 4, 8}, "float32"),
               best = output_json("best", {1}, "int8", 0.00390625, 0),
               grid = output_json("grid", {1, 2, 2, 4, 8}, "int8", 0.0625, 0);
    write_artifact(folder.path(), with_outputs(manifest, {logits, map, best, grid}), model);
    Session session(load_artifact(folder.path()), "", BackendOptions{});
    const auto one = open_with(folder, tiny_manifest(), tiny_model());
    for (std::uint8_t seed = 0; seed < 4; ++seed) {
        Bytes input(8 * 8 * 3);
        for (std::size_t i = 0; i < input.size(); ++i) {
            input[i] = static_cast<std::uint8_t>(i * 7 + seed * 31);
        }
        session.set_input(input);
        session.invoke();
        CHECK(session.output_bytes(0) == answer_to(*one, seed));
        const std::vector<float> reals = session.output(session.output_index("map"));
        CHECK(reals == session.output(session.output_index("grid")));
        CHECK(*std::max_element(reals.begin(), reals.end()) > 0.5F);
        float sum = 0;
        for (const float logit : session.output(0)) {
            sum += logit;
        }
        CHECK(std::abs(session.output(2).front() - sum / 4) <= 0.00390625F / 2);
    }
    const auto refused = [&](const std::vector<json>& outputs) {
        write_artifact(folder.path(), with_outputs(manifest, outputs), model);
        return message_of<InputError>(
            [&] { Session(load_artifact(folder.path()), "", BackendOptions{}); });
    };
    CHECK(contains(refused({logits, map, best}), "has 4 outputs, 3 are expected"));
    CHECK(contains(refused({logits, map, best, output_json("gird", {1}, "float32")}),
                   "has no output 'gird' as the manifest says; it has 'best', 'map', 'logits', "
                   "'grid'"));
    CHECK(contains(refused({logits, best, grid, output_json("map", {1, 128}, "float32")}),
                   "its output 'map' is float32 [1, 4, 4, 8]"));
}

TEST_CASE("a manifest that does not fit the model is refused") {
    const TemporaryFolder folder;
    json manifest = tiny_manifest();
    manifest["input"]["scale"] = 0.0078124;
    CHECK(contains(message_of<InputError>([&] { open_with(folder, manifest, tiny_model()); }),
                   "its input is int8"));
    manifest = tiny_manifest();
    manifest["outputs"][0]["zero_point"] = 1;
    CHECK(contains(message_of<InputError>([&] { open_with(folder, manifest, tiny_model()); }),
                   "its output is int8"));
}

TEST_CASE("a file that is no model is refused") {
    const TemporaryFolder folder;
    for (const std::size_t size :
         {std::size_t{0}, std::size_t{7}, std::size_t{64}, tiny_model().size() / 2}) {
        CAPTURE(size);
        const std::string model = tiny_model().substr(0, size);
        json manifest = tiny_manifest();
        manifest["artifact"]["sha256"] = sha256_hex(model);
        CHECK(contains(message_of<InputError>([&] { open_with(folder, manifest, model); }),
                       size == 0 ? "is empty" : "is a damaged .tflite model"));
    }
}

namespace {

// A folder as `edgevit compile --target qnn` writes it, whose programs mean nothing, opened over
// the stand-in of the NPU's library (tests/npu_standin).
class NpuFolder {
  public:
    NpuFolder() {
        write(read_text(EDGEVIT_TEST_DATA "/npu.tflite"));
        ::unsetenv("EDGEVIT_STANDIN_FAILS");
    }

    void write(const std::string& program) {
        for (const std::string name : {"Qualcomm_A1.tflite", "Qualcomm_B2.tflite"}) {
            write_text(folder_.path() / "model.litert" / name, program);
        }
        write_text(folder_.path() / "model.litert/portable.tflite", tiny_model());
        json manifest = tiny_manifest();
        manifest["target"] = "qnn";
        manifest["options"]["soc"] = "A1,B2";
        manifest["artifact"]["file"] = "model.litert";
        manifest["artifact"]["sha256"] = sha256_tree(folder_.path() / "model.litert");
        write_text(folder_.path() / "manifest.json", manifest.dump());
    }

    std::unique_ptr<Backend> open(const std::string& dispatch = EDGEVIT_NPU_STANDIN) const {
        BackendOptions options;
        options.runtime_options = {{"soc", "B2"}, {"dispatch_dir", dispatch}};
        return open_backend("qnn", load_artifact(folder_.path()), options);
    }

  private:
    TemporaryFolder folder_;
};

}  // namespace

TEST_CASE("an NPU's program runs through LiteRT and the vendor's library, here a stand-in") {
    const auto backend = NpuFolder().open();
    CHECK(backend->accelerator() == "npu");
    const RuntimeFacts facts = backend->facts();
    CHECK(facts.accelerator_requested == "npu");
    CHECK(facts.device == "Qualcomm B2");
    CHECK(facts.fully_accelerated == true);
    CHECK(facts.non_cpu_fully_accelerated.value_or(true));
    Bytes input(8 * 8 * 3), output(4);
    for (std::uint8_t seed = 1; seed < 4; ++seed) {
        for (std::size_t i = 0; i < input.size(); ++i) {
            input[i] = static_cast<std::uint8_t>(i * 7 + seed);
        }
        backend->set_input(input);
        backend->invoke();
        backend->get_output(0, output.data(), output.size());
        CHECK(std::equal(output.begin(), output.end(), input.begin()));
    }
    const OpReport report = backend->profile(input, 1);
    CHECK(report.total == 1);
    CHECK(report.delegated == 1);
}

// LiteRT loads a vendor's library once a process: tests/test_npu_backend.py has what fails before.
TEST_CASE("what the NPU refuses is told when it is opened, and nothing else runs") {
    for (const char* step : {"program", "invoke"}) {
        const NpuFolder folder;
        CAPTURE(step);
        ::setenv("EDGEVIT_STANDIN_FAILS", step, 1);
        const std::string message = message_of<ToolMissing>([&] { folder.open(); });
        CHECK(contains(message, "LiteRT cannot run all of the model on the accelerator here"));
        CHECK(contains(message, "the phone is not a B2"));
        CHECK(contains(message, "nothing was run on the CPU instead"));
        ::unsetenv("EDGEVIT_STANDIN_FAILS");
        CHECK(folder.open() != nullptr);
    }
}

TEST_CASE("a net without a program of the NPU is not run in its place") {
    NpuFolder folder;
    folder.write(tiny_model());
    CHECK(contains(message_of<ToolMissing>([&] { folder.open(); }),
                   "LiteRT cannot run all of the model on the accelerator here"));
}
