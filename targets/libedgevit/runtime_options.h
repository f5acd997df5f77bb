// Options of one runtime, by name: what a back-end says it takes, and the check of what was given.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace edgevit {

// What was given: "compute_units" -> "cpu".
using RuntimeOptions = std::map<std::string, std::string>;

// One option that a back-end takes: one of `values`, or an integer in `range` (both ends included),
// or, where there is neither, any text that is not empty.
struct RuntimeOption {
    std::string name;  // lower-case words joined by '_'
    std::string help;  // one line
    std::vector<std::string> values = {};
    std::optional<std::pair<std::int64_t, std::int64_t>> range = {};

    // For --help and for messages: "compute_units=all|cpu", "workspace_mib=16..65536".
    std::string usage() const;
};

// "a=1", "b=TEXT" in their order, or "none".
std::string usage_of(const std::vector<RuntimeOption>& options);

// Raises InputError naming the option, what is wrong with it and what the back-end takes.
void check_runtime_options(const std::string& backend, const std::vector<RuntimeOption>& takes,
                           const RuntimeOptions& given);

// The value that was given, or the default. The second needs a value that was checked.
std::string runtime_option(const RuntimeOptions& given, const std::string& name,
                           const std::string& otherwise);
std::int64_t runtime_integer(const RuntimeOptions& given, const std::string& name,
                             std::int64_t otherwise);

// Adds "KEY=VALUE", as a command line spells it. Raises InputError for a word without a name or
// '=', and for a name that is there already.
void add_runtime_option(RuntimeOptions& options, const std::string& word);
void add_runtime_option(RuntimeOptions& options, const std::string& name, const std::string& value);

}  // namespace edgevit
