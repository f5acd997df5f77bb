#include "backend.h"

#include "core/errors.h"

namespace edgevit {
namespace {

struct Registration {
    BackendFactory open;
    std::set<Option> takes;
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

const std::vector<std::string>& compute_units_names() {
    static const std::vector<std::string> names = {"all", "cpu", "cpu-gpu", "cpu-ane"};
    return names;
}

std::string compute_units_name(ComputeUnits units) {
    return compute_units_names()[static_cast<std::size_t>(units)];
}

bool register_backend(const std::string& name, BackendFactory open, const std::set<Option>& takes) {
    return registry().emplace(name, Registration{open, takes}).second;
}

bool register_left_out(const std::string& name, const std::string& reason) {
    return left_out().emplace(name, reason).second;
}

std::vector<std::string> backend_names() {
    std::vector<std::string> names;
    for (const auto& [name, registration] : registry()) {
        names.push_back(name);
    }
    return names;
}

std::unique_ptr<Backend> open_backend(const std::string& name, const Manifest& manifest,
                                      const BackendOptions& options) {
    if (const auto reason = left_out().find(name); reason != left_out().end()) {
        throw ToolMissing(reason->second);
    }
    const auto found = registry().find(name);
    if (found == registry().end()) {
        std::string known;
        for (const std::string& other : backend_names()) {
            known += (known.empty() ? "" : ", ") + other;
        }
        throw InputError("no back-end is called '" + name + "'; this build has " + known);
    }
    const std::set<Option>& takes = found->second.takes;
    if (options.compute_units && takes.count(Option::compute_units) == 0) {
        throw InputError("the " + name + " back-end takes no --compute-units");
    }
    if (!options.plan_cache.empty() && takes.count(Option::plan_cache) == 0) {
        throw InputError("the " + name + " back-end takes no --plan-cache");
    }
    return found->second.open(manifest, options);
}

void check_tensors(const Backend& backend, const Manifest& manifest) {
    check_tensor("input", backend.inputs(), manifest.input, manifest);
    check_tensor("output", backend.outputs(), manifest.output(), manifest);
}

}  // namespace edgevit
