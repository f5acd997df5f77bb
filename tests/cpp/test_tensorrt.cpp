// The TensorRT back-end over a stand-in of TensorRT and CUDA (tests/nv_stubs): the order of its
// calls, its errors and its cache. That it works with NVIDIA's own is not shown here.
#include <doctest/doctest.h>

#include <numeric>

#include "backend.h"
#include "core/half.h"
#include "fake_runtime.h"
#include "harness.h"
#include "session.h"
#include "support.h"

using namespace edgevit;
using namespace edgevit::test;

namespace {

const std::string kVersion = std::to_string(NV_TENSORRT_MAJOR) + ".3.5";

json onnx_manifest(const std::string& onnx, const std::string& dtype) {
    json manifest = manifest_json(3, onnx);
    manifest["target"] = "tensorrt";
    manifest["artifact"]["file"] = "model.onnx";
    manifest["input"]["shape"] = {1, 3, 8, 8};
    manifest["input"]["layout"] = "NCHW";
    for (json* side : {&manifest["input"], &manifest["outputs"][0]}) {
        (*side)["dtype"] = dtype;
        (*side)["scale"] = (*side)["zero_point"] = nullptr;
    }
    return manifest;
}

struct Fixture {
    TemporaryFolder folder;
    BackendOptions options;

    explicit Fixture(const std::string& more = "", const std::string& dtype = "float16") {
        fake::state() = {};
        const std::string onnx = "fake-onnx " + dtype + " 3 " + more;
        write_text(folder / "artifact/model.onnx", onnx);
        write_text(folder / "artifact/manifest.json", onnx_manifest(onnx, dtype).dump());
        fs::create_directory(folder / "plans");
        options.runtime_options["plan_cache"] = folder / "plans";
    }
    ~Fixture() {
        CHECK(fake::state().live == 0);
        CHECK(fake::state().violations == std::vector<std::string>{});
    }

    std::unique_ptr<Backend> open() const {
        return open_backend("tensorrt", load_artifact(folder / "artifact"), options);
    }
    template <typename E>
    std::string refusal() const {
        return message_of<E>([&] { open(); });
    }
    std::vector<std::string> plans() const {
        std::vector<std::string> names;
        for (const auto& item : fs::directory_iterator(folder / "plans")) {
            names.push_back(item.path().filename().string());
        }
        std::sort(names.begin(), names.end());
        return names;
    }
};

}  // namespace

TEST_CASE("the input goes through the engine and the output comes back") {
    const Fixture fixture;
    const auto backend = fixture.open();
    CHECK(backend->inputs().front().describe() == "float16 [1, 3, 8, 8]");
    Bytes input(2 * 3 * 8 * 8);
    for (std::size_t i = 0; i < input.size(); ++i) {
        input[i] = static_cast<std::uint8_t>(i + 1);
    }
    backend->set_input(input);
    backend->invoke();
    Bytes output(6);
    backend->get_output(0, output.data(), output.size());
    CHECK(output == Bytes{1, 2, 3, 4, 5, 6});
    CHECK(backend->last_device_us() == 250.0);
    CHECK(fake::state().nvtx_marked_runs == 0);
    CHECK(contains(message_of<Error>([&] { backend->set_input({input.data(), 4}); }), "4 bytes"));
    CHECK(
        contains(message_of<Error>([&] { backend->get_output(0, output.data(), 3); }), "3 bytes"));
    const RuntimeFacts facts = backend->facts();
    CHECK(facts.version == kVersion);
    CHECK(facts.device == "Fake, compute capability 8.7, driver for CUDA 12.6");
}

TEST_CASE("every output comes back from the GPU") {
    Fixture fixture("features", "float32");
    json manifest = json::parse(read_text(fixture.folder / "artifact/manifest.json"));
    manifest = with_outputs(manifest, {output_json("logits", {1, 3}, "float32"),
                                       output_json("features", {1, 2, 2, 2}, "float32")});
    write_text(fixture.folder / "artifact/manifest.json", manifest.dump());
    Session session(load_artifact(fixture.folder / "artifact"), "", fixture.options);
    std::vector<float> values(3 * 8 * 8);
    for (const float start : {0.5F, 100.0F}) {
        std::iota(values.begin(), values.end(), start);
        session.set_input({reinterpret_cast<const std::uint8_t*>(values.data()), 4 * 3 * 8 * 8});
        session.invoke();
        CHECK(session.output(0) == std::vector<float>(values.begin(), values.begin() + 3));
        CHECK(session.output(1) == std::vector<float>(values.begin() + 16, values.begin() + 24));
    }
}

TEST_CASE("the layers are counted by what they read, and timed") {
    const Fixture fixture("", "float32");
    const OpReport report = fixture.open()->profile(Bytes(4 * 3 * 8 * 8), 5);
    CHECK(report.total == 2);
    CHECK(report.precisions == std::map<std::string, std::int64_t>{{"float16", 1}, {"int8", 1}});
    CHECK(report.times[0].runs == 5);
    CHECK(report.times[0].total_us == 10);
    CHECK(report.times[1].total_us == 5);
}

TEST_CASE("a whole run tells the time on the GPU") {
    const Fixture fixture;
    write_images(fixture.folder / "images");
    const std::string artifact = fixture.folder / "artifact", images = fixture.folder / "images",
                      out = fixture.folder / "r.json", profile = fixture.folder / "p.json",
                      plans = fixture.folder / "plans";
    const std::vector<const char*> argv = {"edgevit-harness", "--artifact",   artifact.c_str(),
                                           "--data",          images.c_str(), "--out",
                                           out.c_str(),       "--profile",    profile.c_str(),
                                           "--plan-cache",    plans.c_str(),  "--quiet"};
    REQUIRE(run_command_line(static_cast<int>(argv.size()), argv.data()) == 0);
    const json result = json::parse(read_text(out));
    CHECK(result["latency_us"]["device"]["p50"] == 250.0);
    CHECK(result["latency_us"]["device"]["count"] == 3);
    CHECK(result["runtime"]["device"] == "Fake, compute capability 8.7, driver for CUDA 12.6");
    CHECK(result["ops"]["devices"] == json{{"gpu", 2}});
    CHECK(result["ops"]["precisions"] == json{{"float16", 1}, {"int8", 1}});
    const json op = json::parse(read_text(profile))["op_times"][0];
    CHECK(op["type"].is_string());
    CHECK(op["precision"] == "int8");
    CHECK(op["mean_us"] == 2.0);
}

TEST_CASE("no plan is kept unless a folder is named") {
    Fixture fixture;
    fixture.options.runtime_options.clear();
    fixture.open();
    fixture.open();
    CHECK(fake::state().builds == 2);
    CHECK(fixture.plans().empty());
    CHECK(std::distance(fs::directory_iterator(fixture.folder / "artifact"),
                        fs::directory_iterator()) == 2);
}

TEST_CASE("a plan is built once for one GPU, driver and file") {
    const Fixture fixture;
    fixture.open();
    fixture.open();
    CHECK(fake::state().builds == 1);
    CHECK(fixture.plans().size() == 3);
    fake::state().driver = 13000;
    fixture.open();
    CHECK(fake::state().builds == 2);
    CHECK(fake::state().timing_caches_read == 1);
    fake::state().gpu_name = "Other";
    fixture.open();
    CHECK(fake::state().builds == 3);
    fake::state().multiprocessors = 4;  // another board of the same name and capability
    fixture.open();
    CHECK(fake::state().builds == 4);
    CHECK(fixture.plans().size() == 3);
}

TEST_CASE("the workspace is the one asked for, and a plan is kept for one workspace alone") {
    Fixture fixture;
    fixture.open();
    CHECK(fake::state().workspace_bytes == std::size_t{1} << 30);
    fixture.options.runtime_options["workspace_mib"] = "64";
    fixture.open();
    CHECK(fake::state().builds == 2);
    CHECK(fake::state().workspace_bytes == std::size_t{64} << 20);
    fixture.open();
    CHECK(fake::state().builds == 2);
}

TEST_CASE("a damaged timing cache is the same as none") {
    const Fixture fixture;
    write_text(fixture.folder / "plans/timing.cache", "damaged");
    fixture.open();
    CHECK(read_text(fixture.folder / "plans/timing.cache") == "fake-timings");
}

TEST_CASE("each refusal carries TensorRT's reason") {
    CHECK(contains(Fixture("unreadable").refusal<InputError>(),
                   "TensorRT " + kVersion + " cannot read it: node 7: no such op"));
    const std::string unbuildable = Fixture("unbuildable").refusal<Error>();
    CHECK(contains(unbuildable, "model.onnx: TensorRT cannot build a plan: no tactic fits"));
    CHECK_FALSE(contains(unbuildable, "of no interest"));
    CHECK(contains(Fixture("unloadable").refusal<Error>(), "made for another GPU"));
    CHECK(contains(Fixture("unbindable").refusal<Error>(), "cannot bind input: no reason given"));
    CHECK(contains(Fixture("boolean").refusal<InputError>(), "tensor input has TensorRT's data"));
    CHECK(contains(Fixture("vectorized").refusal<InputError>(), "not laid out row by row"));
    const Fixture unrunnable("unrunnable");
    const auto backend = unrunnable.open();
    backend->set_input(Bytes(2 * 3 * 8 * 8));
    CHECK(contains(message_of<Error>([&] { backend->invoke(); }), "cannot run the plan"));
}

TEST_CASE("without a GPU the way out is named") {
    const Fixture fixture;
    fake::state().gpus = 0;
    const std::string message = fixture.refusal<ToolMissing>();
    CHECK(contains(message, "no CUDA-capable device is detected"));
    CHECK(contains(message, "--backend onnxruntime"));
}

TEST_CASE("options that mean nothing to TensorRT are refused") {
    Fixture fixture;
    fixture.options.threads = 2;
    CHECK(contains(fixture.refusal<InputError>(), "leave --threads out"));
    fixture.options = {};
    fixture.options.runtime_library = "libnvinfer.so";
    CHECK(contains(fixture.refusal<InputError>(), "leave --runtime out"));
    fixture.options = {};
    fixture.options.runtime_options["compute_units"] = "cpu";
    CHECK(contains(fixture.refusal<InputError>(),
                   "takes no runtime option 'compute_units'; it takes plan_cache=TEXT, "
                   "workspace_mib=16..65536"));
    for (const char* workspace : {"", "15", "65537", "1024x", " 64", "99999999999999999999"}) {
        fixture.options.runtime_options = {{"workspace_mib", workspace}};
        CHECK(contains(fixture.refusal<InputError>(), "takes workspace_mib=16..65536"));
    }
    fixture.options.runtime_options = {{"plan_cache", ""}};
    CHECK(contains(fixture.refusal<InputError>(), "plan_cache is ''"));
    fixture.options.runtime_options = {{"plan_cache", fixture.folder / "nowhere"}};
    CHECK(contains(fixture.refusal<InputError>(), "nowhere: no such folder for plans"));
    CHECK(fake::state().builds == 0);
}

TEST_CASE("a manifest that does not fit the engine is refused") {
    const Fixture fixture;
    json manifest = json::parse(read_text(fixture.folder / "artifact/manifest.json"));
    manifest["outputs"][0]["dtype"] = "float32";
    write_text(fixture.folder / "artifact/manifest.json", manifest.dump());
    CHECK(contains(fixture.refusal<InputError>(), "its output is float16 [1, 3]"));
}
