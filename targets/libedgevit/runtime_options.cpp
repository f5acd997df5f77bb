#include "runtime_options.h"

#include <algorithm>
#include <charconv>

#include "core/errors.h"

namespace edgevit {
namespace {

std::string joined(const std::vector<std::string>& words, const char* between) {
    std::string text;
    for (const std::string& word : words) {
        text += (text.empty() ? "" : between) + word;
    }
    return text;
}

std::optional<std::int64_t> integer_of(const std::string& text) {
    std::int64_t value = 0;
    const char* end = text.data() + text.size();
    const auto [stopped, error] = std::from_chars(text.data(), end, value);
    return error == std::errc() && stopped == end ? std::optional(value) : std::nullopt;
}

bool is_allowed(const RuntimeOption& option, const std::string& value) {
    if (!option.values.empty()) {
        return std::find(option.values.begin(), option.values.end(), value) != option.values.end();
    }
    if (option.range) {
        const std::optional<std::int64_t> number = integer_of(value);
        return number && *number >= option.range->first && *number <= option.range->second;
    }
    return !value.empty();
}

}  // namespace

std::string RuntimeOption::usage() const {
    if (!values.empty()) {
        return name + "=" + joined(values, "|");
    }
    return name + "=" +
           (range ? std::to_string(range->first) + ".." + std::to_string(range->second) : "TEXT");
}

std::string usage_of(const std::vector<RuntimeOption>& options) {
    std::vector<std::string> usages;
    usages.reserve(options.size());
    for (const RuntimeOption& option : options) {
        usages.push_back(option.usage());
    }
    return usages.empty() ? "none" : joined(usages, ", ");
}

void check_runtime_options(const std::string& backend, const std::vector<RuntimeOption>& takes,
                           const RuntimeOptions& given) {
    for (const auto& [name, value] : given) {
        const auto found =
            std::find_if(takes.begin(), takes.end(),
                         [&key = name](const auto& each) { return each.name == key; });
        if (found == takes.end()) {
            throw InputError("the " + backend + " back-end takes no runtime option '" + name +
                             "'; it takes " + usage_of(takes));
        }
        if (!is_allowed(*found, value)) {
            throw InputError("the runtime option " + name + " is '" + value + "'; the " + backend +
                             " back-end takes " + found->usage());
        }
    }
}

std::string runtime_option(const RuntimeOptions& given, const std::string& name,
                           const std::string& otherwise) {
    const auto found = given.find(name);
    return found == given.end() ? otherwise : found->second;
}

std::int64_t runtime_integer(const RuntimeOptions& given, const std::string& name,
                             std::int64_t otherwise) {
    const auto found = given.find(name);
    return found == given.end() ? otherwise : integer_of(found->second).value_or(otherwise);
}

void add_runtime_option(RuntimeOptions& options, const std::string& word) {
    const std::size_t equals = word.find('=');
    if (equals == std::string::npos || equals == 0) {
        throw InputError("the runtime option '" + word + "' must be KEY=VALUE");
    }
    add_runtime_option(options, word.substr(0, equals), word.substr(equals + 1));
}

void add_runtime_option(RuntimeOptions& options, const std::string& name,
                        const std::string& value) {
    if (!options.emplace(name, value).second) {
        throw InputError("the runtime option '" + name + "' is given twice");
    }
}

}  // namespace edgevit
