// Latency over time: a run that goes on until a time is over, cut into buckets.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "sensors.h"
#include "statistics.h"

namespace edgevit {

// The least that MLPerf's single-stream scenario asks of a run; its figure is the P90.
inline constexpr std::int64_t kMlperfSamples = 1024;
inline constexpr double kMlperfDurationS = 60;

struct LongRunOptions {
    double min_duration_s = 0;
    std::int64_t min_samples = 0;
    double bucket_s = 10;
    bool mlperf = false;
    std::filesystem::path sysfs = "/sys";
};

struct LongRunReport {
    struct Bucket {
        double start_s = 0;  // since the first timed inference began
        Summary invoke_us;
        SensorReading sensors;  // when the bucket was over
    };

    LongRunOptions options;
    std::int64_t samples = 0;
    double duration_s = 0;
    double invoke_share_percent = 0;  // of the duration spent in the runtime's call
    std::vector<std::string> zones;
    std::vector<std::string> clocks;
    SensorReading sensors_at_start;
    std::vector<Bucket> buckets;      // those in which an inference ended, in order
    double window_s = 0;              // a minute, or half the run where that is less
    std::optional<Summary> first;     // invoke of the inferences that ended in the first window
    std::optional<Summary> last;      // ... in the last; empty where none did
    std::optional<double> p50_ratio;  // last to first: above 1 the device slows down
};

// Told when each inference ended; reads the sensors as buckets fill up. Times are seconds since
// the first inference began.
class LongRun {
  public:
    explicit LongRun(const LongRunOptions& options);

    void add(double end_s);
    bool is_over() const;

    // `invoke_us` has the times of the same inferences, in order.
    LongRunReport report(const std::vector<double>& invoke_us) const;

  private:
    std::size_t bucket_of(double end_s) const;

    LongRunOptions options_;
    Sensors sensors_;
    SensorReading at_start_;
    std::vector<double> ends_s_;
    std::vector<SensorReading> readings_;  // one a bucket that is over and not empty
};

}  // namespace edgevit
