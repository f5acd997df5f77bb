// Typed access to a JSON object whose errors name the file and the path of the key.
#pragma once

#include <cmath>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "core/errors.h"

namespace edgevit {

class JsonReader {
  public:
    // `where` is the file, for messages. Raises InputError when the value is not an object.
    JsonReader(const nlohmann::json& value, std::string where, std::string path = "")
        : value_(value), where_(std::move(where)), path_(std::move(path)) {
        if (!value_.is_object()) {
            fail("", "must be an object");
        }
    }

    const nlohmann::json& at(const std::string& key) const {
        const auto found = value_.find(key);
        if (found == value_.end()) {
            fail(key, "is missing");
        }
        return *found;
    }

    bool has(const std::string& key) const { return value_.contains(key); }

    bool is_null(const std::string& key) const { return at(key).is_null(); }

    JsonReader object(const std::string& key) const {
        return JsonReader(at(key), where_, path_ + key + ".");
    }

    bool boolean(const std::string& key) const {
        const nlohmann::json& value = at(key);
        if (!value.is_boolean()) {
            fail(key, "must be true or false");
        }
        return value.get<bool>();
    }

    std::string text(const std::string& key) const {
        const nlohmann::json& value = at(key);
        if (!value.is_string()) {
            fail(key, "must be a string");
        }
        return value.get<std::string>();
    }

    // An object whose values are all strings.
    std::map<std::string, std::string> texts(const std::string& key) const {
        const JsonReader reader = object(key);
        std::map<std::string, std::string> result;
        for (const auto& [name, value] : reader.value_.items()) {
            result[name] = reader.text(name);
        }
        return result;
    }

    std::int64_t integer(const std::string& key, std::int64_t low, std::int64_t high) const {
        return integer(at(key), key, low, high);
    }

    std::int64_t integer(const nlohmann::json& value, const std::string& key, std::int64_t low,
                         std::int64_t high) const {
        // is_number_integer() holds for unsigned values too; one above the signed range would wrap.
        const bool fits = value.is_number_integer() &&
                          !(value.is_number_unsigned() && value.get<std::uint64_t>() > INT64_MAX);
        if (!fits || value.get<std::int64_t>() < low || value.get<std::int64_t>() > high) {
            fail(key,
                 "must be an integer from " + std::to_string(low) + " to " + std::to_string(high));
        }
        return value.get<std::int64_t>();
    }

    double number(const nlohmann::json& value, const std::string& key) const {
        if (!value.is_number() || !std::isfinite(value.get<double>())) {
            fail(key, "must be a finite number");
        }
        return value.get<double>();
    }

    // An array of `least` to `most` objects, each with its place in its name.
    std::vector<JsonReader> objects(const std::string& key, std::size_t least,
                                    std::size_t most) const {
        const nlohmann::json& value = array(key, least, most);
        std::vector<JsonReader> readers;
        readers.reserve(value.size());
        for (std::size_t i = 0; i < value.size(); ++i) {
            readers.emplace_back(value[i], where_, path_ + key + "." + std::to_string(i) + ".");
        }
        return readers;
    }

    const nlohmann::json& array(const std::string& key, std::size_t size) const {
        const nlohmann::json& value = at(key);
        if (!value.is_array() || value.size() != size) {
            fail(key, "must be an array of " + std::to_string(size));
        }
        return value;
    }

    const nlohmann::json& array(const std::string& key, std::size_t least, std::size_t most) const {
        const nlohmann::json& value = at(key);
        if (!value.is_array() || value.size() < least || value.size() > most) {
            fail(key,
                 "must be an array of " + std::to_string(least) + " to " + std::to_string(most));
        }
        return value;
    }

    [[noreturn]] void fail(const std::string& key, const std::string& what) const {
        std::string name = path_ + key;
        if (!name.empty() && name.back() == '.') {
            name.pop_back();
        }
        throw InputError(where_ + ": " + (name.empty() ? "the document" : name) + " " + what);
    }

  private:
    const nlohmann::json& value_;
    std::string where_;
    std::string path_;
};

}  // namespace edgevit
