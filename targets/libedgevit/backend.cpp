#include "backend.h"

#include "core/errors.h"

namespace edgevit {
namespace {

struct Registration {
    BackendFactory open;
    std::vector<RuntimeOption> takes;
    Opens opens;
};

// Functions' statics, so that they exist before the first back-end registers itself.
std::map<std::string, Registration>& registry() {
    static std::map<std::string, Registration> backends;
    return backends;
}

std::map<std::string, std::string>& left_out() {
    static std::map<std::string, std::string> reasons;
    return reasons;
}

void check_count(const std::string& role, std::size_t actual, std::size_t expected,
                 const Manifest& manifest) {
    if (actual != expected) {
        throw InputError(
            manifest.artifact_path().string() + ": has " + std::to_string(actual) + " " + role +
            "s, " + (expected == 1 ? "one is" : std::to_string(expected) + " are") + " expected");
    }
}

void check_tensor(const std::string& role, const TensorSpec& actual, const TensorSpec& expected,
                  const Manifest& manifest) {
    if (!same_layout(actual, expected)) {
        throw InputError(manifest.artifact_path().string() + ": its " + role + " is " +
                         actual.describe() + ", the manifest says " + expected.describe());
    }
}

std::size_t index_of(const std::string& name, const std::vector<TensorSpec>& tensors,
                     const Manifest& manifest) {
    std::string known;
    for (std::size_t i = 0; i < tensors.size(); ++i) {
        if (tensors[i].name == name) {
            return i;
        }
        known += (known.empty() ? "'" : ", '") + tensors[i].name + "'";
    }
    throw InputError(manifest.artifact_path().string() + ": has no output '" + name +
                     "' as the manifest says; it has " + known);
}

const Registration& registered(const std::string& name) {
    const auto found = registry().find(name);
    if (found == registry().end()) {
        std::string known;
        for (const std::string& other : backend_names()) {
            known += (known.empty() ? "" : ", ") + other;
        }
        throw InputError("no back-end is called '" + name + "'; this build has " + known);
    }
    return found->second;
}

}  // namespace

bool register_backend(const std::string& name, BackendFactory open,
                      const std::vector<RuntimeOption>& takes, Opens opens) {
    return registry().emplace(name, Registration{open, takes, opens}).second;
}

bool register_left_out(const std::string& name, const std::string& reason) {
    return left_out().emplace(name, reason).second;
}

std::vector<std::string> backend_names() {
    std::vector<std::string> names;
    names.reserve(registry().size());
    for (const auto& [name, registration] : registry()) {
        names.push_back(name);
    }
    return names;
}

const std::vector<RuntimeOption>& runtime_options_of(const std::string& backend) {
    return registered(backend).takes;
}

std::unique_ptr<Backend> open_backend(const std::string& name, const Manifest& manifest,
                                      const BackendOptions& options) {
    if (const auto reason = left_out().find(name); reason != left_out().end()) {
        throw ToolMissing(reason->second);
    }
    const Registration& backend = registered(name);
    check_runtime_options(name, backend.takes, options.runtime_options);
    if (options.artifact.data != nullptr && backend.opens == Opens::folders) {
        throw InputError("the " + name + " back-end opens a folder, not memory or a descriptor");
    }
    return backend.open(manifest, options);
}

std::vector<std::size_t> match_tensors(const Backend& backend, const Manifest& manifest) {
    const std::vector<TensorSpec> inputs = backend.inputs(), outputs = backend.outputs();
    check_count("input", inputs.size(), 1, manifest);
    check_tensor("input", inputs.front(), manifest.input, manifest);
    check_count("output", outputs.size(), manifest.outputs.size(), manifest);
    if (outputs.size() == 1) {  // whose name may differ between runtimes
        check_tensor("output", outputs.front(), manifest.outputs.front(), manifest);
        return {0};
    }
    std::vector<std::size_t> indices;
    indices.reserve(outputs.size());
    for (const TensorSpec& expected : manifest.outputs) {
        indices.push_back(index_of(expected.name, outputs, manifest));
        check_tensor("output '" + expected.name + "'", outputs[indices.back()], expected, manifest);
    }
    return indices;
}

}  // namespace edgevit
