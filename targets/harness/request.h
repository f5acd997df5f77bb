// What one run of the harness is asked for. Two readers fill the struct: that of a JSON file
// (edgevit/schemas/request.schema.json, --request) and that of the other options (arguments.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "backend.h"
#include "core/limits.h"
#include "early_stop.h"
#include "long_run.h"

namespace edgevit {

template <typename T>
struct Range {
    T least;
    T most;
};

// As in edgevit.measure.request: Python refuses what is outside before the harness starts.
inline constexpr Range<std::int64_t> kThreads{1, kMaxThreads};
inline constexpr Range<std::int64_t> kWarmup{0, kMaxWarmup};
inline constexpr Range<std::int64_t> kLimit{1, kMaxRunImages};
inline constexpr Range<double> kDurationS{0.001, kMaxDurationS};
inline constexpr Range<double> kBucketS{0.01, kMaxDurationS};
inline constexpr Range<double> kMaxDropPoints{-100, 100};
inline constexpr Range<double> kMinAgreementPercent{0, 1000};

struct Request {
    std::filesystem::path artifact;
    std::filesystem::path data;
    std::filesystem::path out;
    std::filesystem::path leave_out;    // names of images, one a line; empty: none
    std::filesystem::path reference;    // empty: the manifest's, if it names one
    std::filesystem::path logits;       // empty: not written
    std::filesystem::path dump_inputs;  // empty: not written
    std::filesystem::path profile;      // empty: not written
    std::string backend;                // empty: the manifest's target
    std::string runtime;                // the runtime's library; empty: the back-end looks for it
    RuntimeOptions runtime_options;
    int threads = 1;
    int warmup = 10;
    std::optional<std::size_t> limit;
    std::optional<double> duration_s;
    std::optional<double> bucket_s;
    bool mlperf = false;
    bool maps_last = false;  // outputs that are maps have their channels last
    std::optional<GateLimits> early_stop;
    bool quiet = false;  // of the command line alone
};

// Raises InputError for text that is no request, naming `where` and the key: not JSON, a key that
// is unknown, missing or given twice, a value of another type or out of range, a newer version.
Request parse_request(const std::string& text, const std::string& where);

// parse_request() of a file. Raises InputError also when it cannot be read or is over 1 MiB.
Request load_request(const std::filesystem::path& path);

// Raises InputError for options that are given without one they need.
void check_request(const Request& request);

// Empty when every image is run once.
std::optional<LongRunOptions> long_run_options(const Request& request);

// What to open the back-end with, which refuses the runtime options that it does not take.
BackendOptions backend_options(const Request& request);

}  // namespace edgevit
