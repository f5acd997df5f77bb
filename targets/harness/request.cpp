#include "request.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>
#include <vector>

#include "core/bytes.h"
#include "core/errors.h"
#include "core/json_reader.h"

namespace edgevit {
namespace {

using nlohmann::json;

constexpr std::int64_t kSchemaVersion = 1;
constexpr std::uint64_t kMaxRequestBytes = 1 << 20;

// The optional keys of an object. A key that was never asked for is unknown.
class StrictReader {
  public:
    StrictReader(const json& object, const std::string& where, const std::string& path = "")
        : object_(object), reader_(object, where, path) {}

    // Each leaves `value` as it is where the key is absent.

    void flag(const std::string& key, bool& value) {
        if (const json* given = find(key)) {
            if (!given->is_boolean()) {
                reader_.fail(key, "must be true or false");
            }
            value = given->get<bool>();
        }
    }

    template <typename Integer>
    void integer(const std::string& key, const Range<std::int64_t>& range, Integer& value) {
        if (const json* given = find(key)) {
            value = static_cast<Integer>(reader_.integer(*given, key, range.least, range.most));
        }
    }

    void number(const std::string& key, const Range<double>& range, double& value) {
        if (const json* given = find(key)) {
            value = reader_.number(*given, key);
            if (!(value >= range.least && value <= range.most)) {
                reader_.fail(key, "must be a number from " + json(range.least).dump() + " to " +
                                      json(range.most).dump());
            }
        }
    }

    // The same with null, which stands for absent.

    void limit(const std::string& key, const Range<std::int64_t>& range,
               std::optional<std::size_t>& value) {
        if (is_given(key)) {
            integer(key, range, value.emplace());
        }
    }

    void seconds(const std::string& key, const Range<double>& range, std::optional<double>& value) {
        if (is_given(key)) {
            number(key, range, value.emplace());
        }
    }

    template <typename Text>
    void text(const std::string& key, Text& value) {
        if (is_given(key)) {
            value = required_text(key);
        }
    }

    std::string required_text(const std::string& key) {
        known_.insert(key);
        std::string value = reader_.text(key);
        if (value.empty() || value.find('\0') != std::string::npos) {
            reader_.fail(key, "must not be empty or hold a zero byte");
        }
        return value;
    }

    double required_number(const std::string& key, const Range<double>& range) {
        reader_.at(key);
        double value = 0;
        number(key, range, value);
        return value;
    }

    bool is_given(const std::string& key) {
        const json* given = find(key);
        return given != nullptr && !given->is_null();
    }

    const JsonReader& reader() const { return reader_; }

    void refuse_unknown_keys() const {
        for (const auto& [key, value] : object_.items()) {
            if (known_.count(key) == 0) {
                reader_.fail(key, "is no key of a request");
            }
        }
    }

  private:
    const json* find(const std::string& key) {
        known_.insert(key);
        const auto found = object_.find(key);
        return found == object_.end() ? nullptr : &*found;
    }

    const json& object_;
    JsonReader reader_;
    std::set<std::string> known_;
};

// json::parse() keeps the last of two values of one key in silence.
json parse_json(const std::string& text, const std::string& where) {
    std::vector<std::set<std::string>> keys;
    const auto check_keys = [&](int, json::parse_event_t event, json& parsed) {
        if (event == json::parse_event_t::object_start) {
            keys.emplace_back();
        } else if (event == json::parse_event_t::object_end) {
            keys.pop_back();
        } else if (event == json::parse_event_t::key) {
            const auto key = parsed.get<std::string>();
            if (!keys.back().insert(key).second) {
                throw InputError(where + ": the key '" + key + "' occurs twice");
            }
        }
        return true;
    };
    try {
        return json::parse(text, check_keys);
    } catch (const json::exception& error) {
        throw InputError(where + ": not valid JSON: " + error.what());
    }
}

void check_kind(StrictReader& root) {
    const JsonReader& reader = root.reader();
    if (const std::string kind = root.required_text("kind"); kind != "edgevit-request") {
        reader.fail("kind", "is '" + kind + "', expected 'edgevit-request'");
    }
    reader.at("schema_version");
    std::int64_t version = 0;
    root.integer("schema_version", {1, std::numeric_limits<std::int64_t>::max()}, version);
    if (version > kSchemaVersion) {
        reader.fail("schema_version",
                    "is " + std::to_string(version) + ", this program reads up to " +
                        std::to_string(kSchemaVersion) + ": build edgevit-harness again");
    }
}

void read_early_stop(StrictReader& root, const json& document, const std::string& where,
                     Request& request) {
    if (root.is_given("early_stop")) {
        StrictReader reader(document.at("early_stop"), where, "early_stop.");
        request.early_stop = {reader.required_number("max_drop", kMaxDropPoints),
                              reader.required_number("min_agreement", kMinAgreementPercent)};
        reader.refuse_unknown_keys();
    }
}

}  // namespace

Request parse_request(const std::string& text, const std::string& where) {
    const json document = parse_json(text, where);
    StrictReader root(document, where);
    check_kind(root);
    Request request;
    request.artifact = root.required_text("artifact");
    request.data = root.required_text("data");
    request.out = root.required_text("out");
    root.text("leave_out", request.leave_out);
    root.text("reference", request.reference);
    root.text("logits", request.logits);
    root.text("dump_inputs", request.dump_inputs);
    root.text("profile", request.profile);
    root.text("backend", request.backend);
    root.text("runtime", request.runtime);
    if (root.is_given("runtime_options")) {
        request.runtime_options = root.reader().texts("runtime_options");
    }
    root.integer("threads", kThreads, request.threads);
    root.integer("warmup", kWarmup, request.warmup);
    root.limit("limit", kLimit, request.limit);
    root.seconds("duration_s", kDurationS, request.duration_s);
    root.seconds("bucket_s", kBucketS, request.bucket_s);
    root.flag("mlperf", request.mlperf);
    root.flag("maps_last", request.maps_last);
    read_early_stop(root, document, where, request);
    root.refuse_unknown_keys();
    check_request(request);
    return request;
}

Request load_request(const std::filesystem::path& path) {
    const Bytes bytes = read_file(path, kMaxRequestBytes);
    return parse_request(std::string(bytes.begin(), bytes.end()), path.string());
}

void check_request(const Request& request) {
    if (request.bucket_s && !request.duration_s && !request.mlperf) {
        throw InputError(
            "--bucket needs --duration or --mlperf; in a request file, bucket_s needs duration_s "
            "or mlperf");
    }
}

std::optional<LongRunOptions> long_run_options(const Request& request) {
    if (!request.duration_s && !request.mlperf) {
        return std::nullopt;
    }
    LongRunOptions options;
    options.min_duration_s = request.duration_s.value_or(0);
    options.bucket_s = request.bucket_s.value_or(options.bucket_s);
    options.mlperf = request.mlperf;
    if (request.mlperf) {
        options.min_samples = kMlperfSamples;
        options.min_duration_s = std::max(options.min_duration_s, kMlperfDurationS);
    }
    return options;
}

BackendOptions backend_options(const Request& request) {
    return {request.threads, request.runtime, request.runtime_options};
}

}  // namespace edgevit
