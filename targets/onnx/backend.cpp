// The onnx target's back-end: ONNX Runtime on the CPU, told to compute the artifact on integers and
// exactly. edgevit/targets/onnx/session.py tells Python's the same, and says why.
#include "core/errors.h"
#include "ort_backend.h"

namespace edgevit::onnx {
namespace {

onnxruntime::Settings settings_of(const Manifest& manifest) {
    const auto option = [&manifest](const char* name) {
        const auto found = manifest.options.find(name);
        return found == manifest.options.end() ? std::string() : found->second;
    };
    if (option("precision") == "float32") {
        return {};
    }
    const std::string type = option("activation_type");
    if (type == "int8") {
        return {{"session.qdqisint8allowed", "1"}};
    }
    if (type == "uint8") {
        return {{"session.x64quantprecision", "1"}};
    }
    throw InputError("the manifest's option activation_type is \"" + type +
                     "\", int8 or uint8 is known: compile the artifact again");
}

std::unique_ptr<Backend> open(const Manifest& manifest, const BackendOptions& options) {
    return onnxruntime::open_onnxruntime(manifest, options, settings_of(manifest));
}

[[maybe_unused]] const bool registered = register_backend("onnx", open);

}  // namespace
}  // namespace edgevit::onnx
