// The tflite target's back-end: runs a .tflite through libLiteRt.so, loaded while it runs.
#include "litert_backend.h"

namespace edgevit::litert {
namespace {

Accelerator accelerator_of(const BackendOptions& options) {
    const std::string name = runtime_option(options.runtime_options, "accelerator", "cpu");
    for (const Accelerator each : {kGpu, kNpu}) {
        if (accelerator_name(each) == name) {
            return each;
        }
    }
    return kCpu;
}

std::unique_ptr<Backend> open(const Manifest& manifest, const BackendOptions& options) {
    LiteRtSettings settings;
    settings.model.accelerator = accelerator_of(options);
    settings.file = manifest.artifact_path();
    settings.advice =
        "its plugin or the device is missing; leave the option accelerator out for the CPU";
    return open_litert(manifest, options, settings);
}

[[maybe_unused]] const bool registered =
    register_backend("tflite", open,
                     {{"accelerator",
                       "what runs all of the artifact, or opening fails (default cpu)",
                       {"cpu", "gpu", "npu"}}},
                     Opens::bytes_too);

}  // namespace
}  // namespace edgevit::litert
