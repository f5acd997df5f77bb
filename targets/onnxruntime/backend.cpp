// The ONNX Runtime back-end: a second runtime for artifacts that are ONNX files. The tensorrt
// target's is one, so it can be checked where there is no GPU.
#include "ort_backend.h"

namespace edgevit::onnxruntime {
namespace {

std::unique_ptr<Backend> open(const Manifest& manifest, const BackendOptions& options) {
    return open_onnxruntime(manifest, options, {});
}

[[maybe_unused]] const bool registered = register_backend("onnxruntime", open);

}  // namespace
}  // namespace edgevit::onnxruntime
