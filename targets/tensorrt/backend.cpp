// The TensorRT back-end: compiles the ONNX artifact for the GPU that is here, and runs it.
#include "backend.h"

#include "core/errors.h"
#include "layer_report.h"
#include "plan_cache.h"
#include "trt_builder.h"
#include "trt_logger.h"
#include "trt_session.h"

namespace edgevit::tensorrt {
namespace {

void check_options(const Manifest& manifest, const BackendOptions& options) {
    if (manifest.artifact_path().extension() != ".onnx") {
        throw InputError(manifest.artifact_path().string() +
                         ": the tensorrt back-end runs .onnx files");
    }
    if (options.threads != 1) {
        throw InputError("TensorRT runs on the GPU: leave --threads out");
    }
    if (!options.runtime_library.empty()) {
        throw InputError("the harness is linked to its TensorRT: leave --runtime out");
    }
}

class TensorRtBackend : public Backend {
  public:
    TensorRtBackend(const Manifest& manifest, const BackendOptions& options) : gpu_(find_gpu()) {
        std::optional<PlanCache> cache;
        const std::string folder = runtime_option(options.runtime_options, "plan_cache", "");
        if (!folder.empty()) {
            cache.emplace(folder);
        }
        const std::int64_t workspace_mib =
            runtime_integer(options.runtime_options, "workspace_mib", kDefaultWorkspaceMib);
        plan_ = make_plan(logger_, manifest.artifact_path(), manifest.artifact_sha256, gpu_,
                          workspace_mib, cache ? &*cache : nullptr);
        session_.emplace(logger_, plan_);
        match_tensors(*this, manifest);  // before buffers are made for one input
        session_->allocate();
    }

    std::vector<TensorSpec> inputs() const override { return session_->inputs(); }
    std::vector<TensorSpec> outputs() const override { return session_->outputs(); }

    void set_input(ByteView bytes) override { session_->set_input(bytes); }
    void invoke() override { session_->invoke(); }
    void get_output(std::size_t index, std::uint8_t* out, std::size_t size_bytes) override {
        session_->get_output(index, out, size_bytes);
    }
    std::optional<double> last_device_us() const override { return session_->last_device_us(); }

    std::string accelerator() const override { return "gpu"; }

    RuntimeFacts facts() const override {
        RuntimeFacts facts;
        facts.name = "TensorRT";
        facts.version = tensorrt_version();
        facts.accelerator_requested = accelerator();
        facts.device = gpu_.name + ", compute capability " + gpu_.compute_capability +
                       ", driver for CUDA " + gpu_.cuda_driver;
        return facts;
    }

    OpReport profile(ByteView input, int runs) override {
        LayerTimer timer;
        Session profiled(logger_, plan_);
        profiled.allocate();
        profiled.set_input(input);
        profiled.invoke();  // the first inference also loads the kernels
        profiled.time_layers(timer);
        for (int i = 0; i < runs; ++i) {
            profiled.invoke();
        }
        return report_layers(profiled.describe_layers(), timer.total_us, runs);
    }

  private:
    Logger logger_;  // outlives the session
    Gpu gpu_;
    Bytes plan_;
    std::optional<Session> session_;
};

std::unique_ptr<Backend> open_tensorrt(const Manifest& manifest, const BackendOptions& options) {
    check_options(manifest, options);
    return std::make_unique<TensorRtBackend>(manifest, options);
}

[[maybe_unused]] const bool registered = register_backend(
    "tensorrt", open_tensorrt,
    {{"plan_cache", "existing folder, writable by you alone, that keeps compiled plans"},
     {"workspace_mib",
      "most GPU memory for a layer's scratch space, MiB (default 1024)",
      {},
      {{16, 65536}}}});

}  // namespace
}  // namespace edgevit::tensorrt
