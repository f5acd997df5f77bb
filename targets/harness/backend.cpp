#include "backend.h"

#include "core/errors.h"

namespace edgevit {
namespace {

// A function's static, so that it exists before the first back-end registers itself.
std::map<std::string, BackendFactory>& registry() {
    static std::map<std::string, BackendFactory> backends;
    return backends;
}

void check_tensor(const std::string& role, const std::vector<TensorSpec>& actual,
                  const TensorSpec& expected, const Manifest& manifest) {
    const std::string where = manifest.artifact_path().string() + ": ";
    if (actual.size() != 1) {
        throw InputError(where + "has " + std::to_string(actual.size()) + " " + role +
                         "s, one is expected");
    }
    if (!same_layout(actual.front(), expected)) {
        throw InputError(where + "its " + role + " is " + actual.front().describe() +
                         ", the manifest says " + expected.describe());
    }
}

}  // namespace

bool register_backend(const std::string& name, BackendFactory open) {
    return registry().emplace(name, open).second;
}

std::vector<std::string> backend_names() {
    std::vector<std::string> names;
    for (const auto& [name, open] : registry()) {
        names.push_back(name);
    }
    return names;
}

std::unique_ptr<Backend> open_backend(const std::string& name, const Manifest& manifest,
                                      const BackendOptions& options) {
    const auto found = registry().find(name);
    if (found == registry().end()) {
        std::string known;
        for (const std::string& other : backend_names()) {
            known += (known.empty() ? "" : ", ") + other;
        }
        throw InputError("no back-end is called '" + name + "'; this harness has " + known);
    }
    return found->second(manifest, options);
}

void check_tensors(const Backend& backend, const Manifest& manifest) {
    check_tensor("input", backend.inputs(), manifest.input, manifest);
    check_tensor("output", backend.outputs(), manifest.output, manifest);
}

}  // namespace edgevit
