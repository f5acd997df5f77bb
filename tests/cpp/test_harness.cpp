// The whole program in one process, with the null back-end and with back-ends that misbehave.
#include "harness.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "core/limits.h"
#include "evaluate.h"
#include "safetensors.h"
#include "samples.h"
#include "support.h"

using namespace edgevit;
using namespace edgevit::test;

namespace {

// A back-end that gives the same output for every image.
class ConstantBackend : public Backend {
  public:
    ConstantBackend(TensorSpec input, TensorSpec output, Bytes answer)
        : input_(std::move(input)), output_(std::move(output)), answer_(std::move(answer)) {}

    std::vector<TensorSpec> inputs() const override { return {input_}; }
    std::vector<TensorSpec> outputs() const override { return {output_}; }
    void set_input(ByteView bytes) override { CHECK(bytes.size == input_.size_bytes()); }
    void invoke() override { ++invocations; }
    void get_output(std::size_t index, std::uint8_t* out, std::size_t size_bytes) override {
        CHECK(index == 0);
        CHECK(size_bytes == answer_.size());
        std::memcpy(out, answer_.data(), answer_.size());
    }
    RuntimeFacts facts() const override { return {}; }
    OpReport profile(ByteView, int) override { return {}; }

    int invocations = 0;

  private:
    TensorSpec input_;
    TensorSpec output_;
    Bytes answer_;
};

// Has these outputs, and runs nothing.
class ManyOutputs : public ConstantBackend {
  public:
    ManyOutputs(TensorSpec input, std::vector<TensorSpec> outputs)
        : ConstantBackend(std::move(input), {}, {}), outputs_(std::move(outputs)) {}
    std::vector<TensorSpec> outputs() const override { return outputs_; }

  private:
    std::vector<TensorSpec> outputs_;
};

// Takes compute units and reports ops by device, untimed: what Core ML's back-end reports.
class PlacingBackend : public ConstantBackend {
  public:
    using ConstantBackend::ConstantBackend;
    OpReport profile(ByteView, int) override {
        OpReport report;
        report.total = 2, report.delegated = 1;
        report.devices = {{"cpu", 1}, {"ane", 1}};
        report.not_delegated = {{"gelu", 1}};
        report.times = {{"conv", true, 0, 0, 0, 0, "ane"}, {"gelu", false, 0, 1, 0, 0, "cpu"}};
        return report;
    }
};

RuntimeOptions requested_options;

std::unique_ptr<Backend> open_placing(const Manifest& manifest, const BackendOptions& options) {
    requested_options = options.runtime_options;
    return std::make_unique<PlacingBackend>(manifest.input, manifest.logits(), Bytes{1, 2, 3});
}

[[maybe_unused]] const bool placing =
    register_backend("placing", open_placing, {{"compute_units", "what to use", {"all", "cpu"}}});
[[maybe_unused]] const bool absent = register_left_out("absent", "not built here, use another");

// An artifact folder and an image folder, and the harness run on them.
struct Bench {
    TemporaryFolder folder;
    json manifest = manifest_json(3);

    Bench() {
        write_images(folder / "images");
        write_artifact(folder / "artifact", manifest);
    }

    int run(const std::vector<std::string>& extra = {}) const {
        std::vector<std::string> words = {"edgevit-harness",
                                          "--artifact",
                                          (folder / "artifact").string(),
                                          "--data",
                                          (folder / "images").string(),
                                          "--out",
                                          (folder / "r.json").string(),
                                          "--quiet"};
        words.insert(words.end(), extra.begin(), extra.end());
        std::vector<const char*> argv;
        for (const std::string& word : words) {
            argv.push_back(word.c_str());
        }
        return run_command_line(static_cast<int>(argv.size()), argv.data());
    }

    json result() const { return json::parse(read_text(folder / "r.json")); }
};

}  // namespace

TEST_CASE("a run with the null back-end writes a whole result, twice the same") {
    const Bench bench;
    REQUIRE(bench.run() == 0);
    const json first = bench.result();
    CHECK(first["kind"] == "edgevit-result");
    CHECK(first["accuracy"]["count"] == 3);
    CHECK(first["accuracy"]["top5_count"] == 3);
    CHECK(first["dataset"]["name"] == "images");
    CHECK(first["agreement"].is_null());
    CHECK(first["agreement_reason"] == "the manifest names no reference logits");
    CHECK(first["ops"]["total"].is_null());
    CHECK(first["ops"]["devices"].is_null());
    CHECK(first["ops"]["precisions"].is_null());
    CHECK(first["latency_us"]["device"].is_null());
    CHECK(first["latency_us"]["invoke"]["count"] == 3);
    CHECK(first["peak_memory_bytes"] > 100000);
    REQUIRE(bench.run() == 0);
    CHECK(bench.result()["accuracy"] == first["accuracy"]);
}

TEST_CASE("a request file asks for the run that the flags ask for") {
    const Bench bench;
    const fs::path file = bench.folder / "run.json";
    const auto run = [&](json changes) {
        json request = {{"schema_version", 1},
                        {"kind", "edgevit-request"},
                        {"artifact", (bench.folder / "artifact").string()},
                        {"data", (bench.folder / "images").string()},
                        {"out", (bench.folder / "r.json").string()}};
        request.update(changes);
        write_text(file, request.dump());
        const std::string name = file.string();
        const char* argv[] = {"edgevit-harness", "--request", name.c_str(), "--quiet"};
        return run_command_line(4, argv);
    };
    REQUIRE(run({{"backend", "placing"}, {"runtime_options", {{"compute_units", "cpu"}}}}) == 0);
    CHECK(requested_options == RuntimeOptions{{"compute_units", "cpu"}});
    CHECK(bench.result()["backend"] == "placing");
    REQUIRE(bench.run({"--limit", "2", "--warmup", "3"}) == 0);
    const json by_flags = bench.result();
    REQUIRE(run({{"limit", 2}, {"warmup", 3}}) == 0);
    for (const char* key : {"accuracy", "threads", "warmup", "limit", "dataset", "backend"}) {
        CHECK(bench.result()[key] == by_flags[key]);
    }
    fs::remove(bench.folder / "r.json");
    CHECK(run({{"runtime_options", {{"compute_units", "cpu"}}}}) == 2);  // null takes none
    CHECK(run({{"backend", "placing"}, {"runtime_options", {{"compute_units", "tpu"}}}}) == 2);
    CHECK(run({{"threads", 0}}) == 2);
    CHECK(run({{"schema_version", 2}}) == 2);
    fs::remove(file);
    const char* argv[] = {"edgevit-harness", "--request", "/no/such/file.json"};
    CHECK(run_command_line(3, argv) == 2);
    CHECK_FALSE(fs::exists(bench.folder / "r.json"));
}

TEST_CASE("a limit takes images spread over the set") {
    CHECK(spread(10, std::nullopt).size() == 10);
    CHECK(spread(10, 4) == std::vector<std::size_t>{0, 2, 5, 7});
    CHECK(spread(3, 10) == std::vector<std::size_t>{0, 1, 2});
    const Bench bench;
    REQUIRE(bench.run({"--limit", "2", "--logits", (bench.folder / "l").string()}) == 0);
    CHECK(bench.result()["limit"] == 2);
    const Bytes paths = read_safetensors(bench.folder / "l").tensors.at("paths").bytes;
    CHECK(std::string(paths.begin(), paths.end()) == "c0/a.jpg\nc1/b.png");
}

TEST_CASE("its own logits as reference agree everywhere") {
    Bench bench;
    const fs::path logits = bench.folder / "artifact" / "reference.safetensors";
    REQUIRE(bench.run({"--logits", logits.string()}) == 0);
    const std::string data_sha256 = bench.result()["dataset"]["sha256"];
    bench.manifest["reference"] = {{"file", "reference.safetensors"},
                                   {"sha256", sha256_file(logits)},
                                   {"dataset_sha256", data_sha256},
                                   {"count", 3}};
    write_artifact(bench.folder / "artifact", bench.manifest);
    REQUIRE(bench.run() == 0);
    const json agreement = bench.result()["agreement"];
    CHECK(agreement["top1_percent"] == 100.0);
    CHECK(agreement["max_abs_step"] == 0);
    CHECK(agreement["step_histogram"] == json::array({{{"step", 0}, {"logits", 9}}}));

    // Of other images: passed over when the manifest names it, an error when the user does.
    write_text(bench.folder / "images" / "c0" / "z.jpg", golden_text("decode/jpeg-444/file"));
    REQUIRE(bench.run() == 0);
    CHECK(bench.result()["agreement_reason"] ==
          "the manifest's reference logits are of other images");
    CHECK(bench.run({"--reference", logits.string()}) == 2);

    // Not the file that the manifest means.
    fs::remove(bench.folder / "images" / "c0" / "z.jpg");
    bench.manifest["reference"]["sha256"] = std::string(64, 'f');
    write_artifact(bench.folder / "artifact", bench.manifest);
    CHECK(bench.run() == 2);
}

TEST_CASE("probabilities are compared with logits by their order, and no distance is told") {
    Bench bench;
    bench.manifest["outputs"][0]["dtype"] = "float32";
    bench.manifest["outputs"][0]["scale"] = bench.manifest["outputs"][0]["zero_point"] = nullptr;
    write_artifact(bench.folder / "artifact", bench.manifest);
    const fs::path logits = bench.folder / "reference.safetensors";
    REQUIRE(bench.run({"--logits", logits.string()}) == 0);
    const auto agreement = [&](const char* output_type) {
        bench.manifest["options"] = {{"output_type", output_type}};
        write_artifact(bench.folder / "artifact", bench.manifest);
        REQUIRE(bench.run({"--reference", logits.string()}) == 0);
        return bench.result()["agreement"];
    };
    CHECK(agreement("logits")["max_abs_logit"] == 0.0);
    const json found = agreement("classifier");
    CHECK(found["top1_percent"] == 100.0);
    for (const char* name : {"max_abs_logit", "mean_abs_logit", "max_abs_step", "step_histogram"}) {
        CHECK(found[name].is_null());
    }
}

TEST_CASE("a long run infers every image again and counts it once") {
    const Bench bench;
    CHECK(bench.run() == 0);
    const json once = bench.result();
    CHECK(once["long_run"].is_null());
    CHECK(once["early_stop"].is_null());
    const std::string logits = (bench.folder / "l").string();
    REQUIRE(bench.run({"--duration", "0.2", "--bucket", "0.05", "--logits", logits}) == 0);
    const json result = bench.result();
    const json run = result["long_run"];
    CHECK(result["accuracy"] == once["accuracy"]);
    CHECK(run["mode"] == "duration");
    CHECK(run["samples"] > 3);
    CHECK(run["samples"] == result["latency_us"]["invoke"]["count"]);
    CHECK(run["duration_s"] >= 0.2);
    CHECK(run["buckets"].size() >= 2);
    std::int64_t samples = 0;
    for (const json& bucket : run["buckets"]) {
        samples += bucket["invoke_us"]["count"].get<std::int64_t>();
        CHECK(bucket["sensors"]["temperatures_c"].size() == run["zones"].size());
    }
    CHECK(samples == run["samples"]);
    CHECK(read_safetensors(logits).tensors.at("predictions").shape == std::vector<std::int64_t>{3});
}

TEST_CASE("an early stop ends at the image that decides, and writes what was run") {
    Bench bench;
    const fs::path logits = bench.folder / "artifact" / "reference.safetensors";
    REQUIRE(bench.run({"--logits", logits.string()}) == 0);
    const std::string data_sha256 = bench.result()["dataset"]["sha256"];
    const std::vector<std::string> gate = {"--early-stop", "--max-drop", "100", "--min-agreement"};
    const auto run = [&](const std::string& agreement, std::vector<std::string> extra) {
        extra.insert(extra.end(), gate.begin(), gate.end());
        extra.push_back(agreement);
        return bench.run(extra);
    };
    CHECK(run("60", {}) == 2);  // no reference
    const std::string own = logits.string();
    const std::string out = (bench.folder / "l").string();
    const std::string inputs = (bench.folder / "i").string();
    REQUIRE(run("60", {"--reference", own, "--logits", out, "--dump-inputs", inputs}) == 0);
    const json result = bench.result();
    CHECK(result["accuracy"]["count"] == 2);
    CHECK(result["agreement"]["count"] == 2);
    CHECK(result["early_stop"]["stopped"] == true);
    CHECK(result["early_stop"]["verdict"] == "holds");
    CHECK(result["early_stop"]["images"] == 3);
    const Safetensors written = read_safetensors(out);
    CHECK(written.tensors.at("logits").shape == std::vector<std::int64_t>{2, 3});
    const Bytes paths = written.tensors.at("paths").bytes;
    CHECK(std::string(paths.begin(), paths.end()) == "c0/a.jpg\nc1/b.png");
    CHECK(read_safetensors(inputs).tensors.at("inputs").shape.front() == 2);

    // No agreement is over 100 %: the first image decides, with a long run too.
    REQUIRE(run("100.1", {"--reference", own, "--duration", "60"}) == 0);
    CHECK(bench.result()["early_stop"]["verdict"] == "fails");
    CHECK(bench.result()["accuracy"]["count"] == 1);
    CHECK(bench.result()["long_run"]["samples"] == 1);

    // A gate that holds leaves a long run its time.
    REQUIRE(run("60", {"--reference", own, "--duration", "0.05"}) == 0);
    CHECK(bench.result()["early_stop"]["stopped"] == false);
    CHECK(bench.result()["accuracy"]["count"] == 3);
    CHECK(bench.result()["long_run"]["samples"] > 3);
}

TEST_CASE("bad input ends with exit code 2 and writes nothing") {
    Bench bench;
    CHECK(bench.run({"--no-such-option"}) == 2);
    CHECK(bench.run({"--backend", "no-such-back-end"}) == 2);
    CHECK(bench.run({"--logits", (bench.folder / "no" / "file").string()}) == 2);
    write_text(bench.folder / "images" / "c1" / "broken.jpg", "not an image");
    CHECK(bench.run({"--logits", (bench.folder / "l").string()}) == 2);
    fs::remove(bench.folder / "images" / "c1" / "broken.jpg");
    write_text(bench.folder / "artifact" / "model.bin", "other");
    CHECK(bench.run() == 2);
    CHECK_FALSE(fs::exists(bench.folder / "r.json"));
    CHECK_FALSE(fs::exists(bench.folder / "l"));
    CHECK(std::distance(fs::directory_iterator(bench.folder.path()), fs::directory_iterator()) ==
          2);
}

TEST_CASE("a missing runtime library ends with exit code 4") {
    const Bench bench;
    CHECK(bench.run({"--backend", "tflite", "--runtime", (bench.folder / "libNone.so").string()}) ==
          4);
    write_text(bench.folder / "libText.so", "no library");
    CHECK(bench.run({"--backend", "tflite", "--runtime", (bench.folder / "libText.so").string()}) ==
          4);
}

TEST_CASE("a back-end that this build leaves out ends with exit code 4 and its reason") {
    const Bench bench;
    CHECK(bench.run({"--backend", "absent"}) == 4);
    CHECK(bench.run({"--backend", "absent", "--compute-units", "cpu"}) == 4);
    const Manifest manifest = load_artifact(bench.folder / "artifact");
    CHECK(message_of<ToolMissing>([&] { open_backend("absent", manifest, {}); }) ==
          "not built here, use another");
    for (const std::string& name : backend_names()) {
        CHECK(name != "absent");
    }
#ifndef __APPLE__
    CHECK(bench.run({"--backend", "coreml"}) == 4);
    CHECK(contains(message_of<ToolMissing>([&] { open_backend("coreml", manifest, {}); }),
                   "built on macOS and iOS only; here `edgevit parity`"));
#endif
}

TEST_CASE("compute units reach a back-end that takes them, and no other takes them") {
    const Bench bench;
    CHECK(bench.run({"--compute-units", "cpu"}) == 2);
    CHECK(bench.run({"--backend", "tflite", "--compute-units", "all"}) == 2);
    REQUIRE(bench.run({"--backend", "placing"}) == 0);
    CHECK(requested_options.empty());
    REQUIRE(bench.run({"--backend", "placing", "--compute-units", "cpu"}) == 0);
    CHECK(requested_options == RuntimeOptions{{"compute_units", "cpu"}});
    CHECK(bench.run({"--backend", "placing", "--compute-units", "tpu"}) == 2);
    CHECK(bench.run({"--backend", "placing", "--runtime-option", "compute_units=tpu"}) == 2);
    REQUIRE(bench.run({"--backend", "placing", "--runtime-option", "compute_units=all"}) == 0);
    CHECK(requested_options == RuntimeOptions{{"compute_units", "all"}});
}

TEST_CASE("no back-end but TensorRT's takes a folder for plans") {
    const Bench bench;
    CHECK(bench.run({"--plan-cache", bench.folder.path().string()}) == 2);
    CHECK(bench.run({"--backend", "tensorrt"}) == 4);
    const Manifest manifest = load_artifact(bench.folder / "artifact");
    CHECK(contains(message_of<ToolMissing>([&] { open_backend("tensorrt", manifest, {}); }),
                   "-DEDGEVIT_WITH_TENSORRT=ON"));
}

TEST_CASE("the device of each op is told, and a time that was not measured is null") {
    const Bench bench;
    REQUIRE(bench.run({"--backend", "placing", "--profile", (bench.folder / "p").string()}) == 0);
    CHECK(bench.result()["ops"]["devices"] == json{{"cpu", 1}, {"ane", 1}});
    const json ops = json::parse(read_text(bench.folder / "p"))["op_times"];
    CHECK(ops[0]["device"] == "ane");
    CHECK(ops[0]["mean_us"].is_null());
    CHECK(ops[0]["partition"].is_null());
    CHECK(ops[1]["device"] == "cpu");
}

TEST_CASE("help is no error") {
    const char* argv[] = {"edgevit-harness", "--help"};
    CHECK(run_command_line(2, argv) == 0);
}

TEST_CASE("an artifact whose tensors are not the manifest's is refused") {
    const Manifest manifest = parse_manifest(manifest_json(3).dump(), "m");
    ConstantBackend good(manifest.input, manifest.logits(), {});
    CHECK_NOTHROW(match_tensors(good, manifest));
    TensorSpec other = manifest.input;
    other.scale = 0.25F;
    ConstantBackend scaled(other, manifest.logits(), {});
    CHECK(contains(message_of<InputError>([&] { match_tensors(scaled, manifest); }),
                   "the manifest says uint8"));
    other = manifest.logits();
    other.shape = {1, 4};
    ConstantBackend shaped(manifest.input, other, {});
    CHECK(contains(message_of<InputError>([&] { match_tensors(shaped, manifest); }),
                   "its output is int8 [1, 4]"));
}

TEST_CASE("several outputs are found by their names, in any order") {
    const json a = output_json("a", {1, 3}, "int8", 0.25, -1), b = output_json("b", {1}, "float32"),
               c = output_json("c", {1, 2, 2}, "float32");
    const auto manifest_of = [](const std::vector<json>& outputs) {
        return parse_manifest(with_outputs(manifest_json(3), outputs).dump(), "m");
    };
    const Manifest manifest = manifest_of({a, b, c});
    ManyOutputs backend(manifest.input,
                        {manifest.outputs[2], manifest.outputs[0], manifest.outputs[1]});
    CHECK(match_tensors(backend, manifest) == std::vector<std::size_t>{1, 2, 0});
    const auto refused = [&](const std::vector<json>& outputs) {
        return message_of<InputError>([&] { match_tensors(backend, manifest_of(outputs)); });
    };
    CHECK(contains(refused({a, b}), "has 3 outputs, 2 are expected"));
    CHECK(contains(refused({a}), "has 3 outputs, one is expected"));
    json other = b;
    other["name"] = "d";
    CHECK(contains(refused({a, other, c}),
                   "has no output 'd' as the manifest says; it has 'c', 'a', 'b'"));
    other = c;
    other["shape"] = {1, 4};
    CHECK(contains(refused({a, b, other}),
                   "its output 'c' is float32 [1, 2, 2], the manifest says float32 [1, 4]"));
}

TEST_CASE("the harness measures a classification, and of another task the outputs") {
    Bench bench;
    const json boxes = output_json("boxes", {1, 5, 4}, "float32");
    bench.manifest =
        with_outputs(manifest_json(3), {output_json("logits", {1, 3}, "int8", 0.25, -1), boxes});
    write_artifact(bench.folder / "artifact", bench.manifest);
    REQUIRE(bench.run() == 0);
    const json several = bench.result();
    write_artifact(bench.folder / "artifact", manifest_json(3));
    REQUIRE(bench.run() == 0);
    CHECK(several["accuracy"] == bench.result()["accuracy"]);
    bench.manifest["task"] = "features";
    write_artifact(bench.folder / "artifact", bench.manifest);
    write_text(bench.folder / "images" / "in no class.jpg",
               read_text(bench.folder / "images" / "c0" / "a.jpg"));
    const std::string kept = (bench.folder / "samples").string();
    REQUIRE(bench.run({"--logits", kept}) == 0);
    const json result = bench.result();
    CHECK(result["accuracy"].is_null());
    CHECK(result["agreement"].is_null());
    CHECK(result["agreement_reason"] == "the task is no classification");
    CHECK(result["latency_us"]["invoke"]["count"] == 4);
    const Safetensors file = read_safetensors(kept);
    CHECK(file.tensors.size() == 2);
    CHECK(file.get("samples", "F32", 2, kept).shape ==
          std::vector<std::int64_t>{4, 2 * kFeatureSamples});
    const Bytes& paths = file.get("paths", "U8", 1, kept).bytes;
    CHECK(contains(std::string(paths.begin(), paths.end()), "in no class.jpg"));
    CHECK(bench.run({"--reference", kept}) == 2);
    CHECK(bench.run({"--max-drop", "1", "--min-agreement", "90", "--early-stop"}) == 2);
}

namespace {

// What is kept of one map whose values in the order of [1, C, H, W] are 0, 1, 2, ...
std::vector<float> samples_of(std::int64_t channels, std::int64_t pixels, bool maps_last) {
    const TemporaryFolder folder;
    std::vector<float> values;
    for (std::int64_t i = 0; i < channels * pixels; ++i) {
        values.push_back(static_cast<float>(maps_last ? i % channels * pixels + i / channels : i));
    }
    const std::vector<std::int64_t> shape = maps_last
                                                ? std::vector<std::int64_t>{1, pixels, 1, channels}
                                                : std::vector<std::int64_t>{1, channels, pixels, 1};
    json manifest = with_outputs(manifest_json(3), {output_json("map", shape, "float32")});
    manifest["task"] = "features";
    const Manifest parsed = parse_manifest(manifest.dump(), "m");
    Bytes bytes(values.size() * sizeof(float));
    std::memcpy(bytes.data(), values.data(), bytes.size());
    Session session(
        parsed, "constant",
        std::make_unique<ConstantBackend>(parsed.input, parsed.outputs[0], std::move(bytes)));
    session.set_input(Bytes(parsed.input.size_bytes()));
    session.invoke();
    return OutputSamples(session, maps_last).read();
}

}  // namespace

TEST_CASE("samples are spread evenly, at the same places for channels first and last") {
    const std::vector<float> found = samples_of(48, 1000, false);
    constexpr auto kSamples = static_cast<std::size_t>(kFeatureSamples);
    REQUIRE(found.size() == kSamples);
    for (std::size_t i = 0; i < found.size(); ++i) {
        CHECK(found[i] == static_cast<float>(i * 48000 / kSamples));
    }
    CHECK(found == samples_of(48, 1000, true));
    // A small output gives its values several times.
    CHECK(samples_of(3, 2, true) == samples_of(3, 2, false));
    CHECK(samples_of(3, 2, true).back() == 5);
}

TEST_CASE("warm-up is not counted, and equal logits go to the first class") {
    const Bench bench;
    const Manifest manifest = load_artifact(bench.folder / "artifact");
    const Dataset dataset = Dataset::open(bench.folder / "images", manifest.labels);
    Session session(
        manifest, "constant",
        std::make_unique<ConstantBackend>(manifest.input, manifest.logits(), Bytes{7, 7, 7}));
    EvaluationOptions options;
    options.warmup = 4;
    const Evaluation evaluation = evaluate(session, dataset, nullptr, options);
    CHECK(dynamic_cast<ConstantBackend&>(session.backend()).invocations == 4 + 3);
    CHECK(evaluation.count == 3);
    CHECK(evaluation.top1 == 1);
    CHECK(evaluation.top5 == 3);
    CHECK(evaluation.invoke_us.size() == 3);
    for (std::size_t i = 0; i < 3; ++i) {
        CHECK(evaluation.end_to_end_us[i] >= evaluation.invoke_us[i]);
    }
}

TEST_CASE("logits that are not finite are refused") {
    Bench bench;
    bench.manifest["outputs"][0]["dtype"] = "float32";
    bench.manifest["outputs"][0]["scale"] = bench.manifest["outputs"][0]["zero_point"] = nullptr;
    write_artifact(bench.folder / "artifact", bench.manifest);
    REQUIRE(bench.run() == 0);
    CHECK(bench.result()["accuracy"]["count"] == 3);
    const Manifest manifest = load_artifact(bench.folder / "artifact");
    const Dataset dataset = Dataset::open(bench.folder / "images", manifest.labels);
    Bytes answer(12);
    const float nan = std::numeric_limits<float>::quiet_NaN();
    std::memcpy(answer.data() + 4, &nan, 4);
    Session session(manifest, "constant",
                    std::make_unique<ConstantBackend>(manifest.input, manifest.logits(), answer));
    const std::string message =
        message_of<InputError>([&] { evaluate(session, dataset, nullptr, {}); });
    CHECK(contains(message, "NaN"));
    CHECK(contains(message, "c0/a.jpg"));
}
