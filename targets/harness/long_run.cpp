#include "long_run.h"

#include <algorithm>
#include <numeric>

namespace edgevit {
namespace {

constexpr double kMinuteS = 60;

std::optional<Summary> summary_of(std::vector<double> values) {
    return values.empty() ? std::nullopt : std::optional(summarise(std::move(values)));
}

}  // namespace

LongRun::LongRun(const LongRunOptions& options)
    : options_(options), sensors_(options.sysfs), at_start_(sensors_.read()) {}

std::size_t LongRun::bucket_of(double end_s) const {
    return static_cast<std::size_t>(end_s / options_.bucket_s);
}

void LongRun::add(double end_s) {
    if (!ends_s_.empty() && bucket_of(end_s) != bucket_of(ends_s_.back())) {
        readings_.push_back(sensors_.read());
    }
    ends_s_.push_back(end_s);
}

bool LongRun::is_over() const {
    return !ends_s_.empty() && ends_s_.back() >= options_.min_duration_s &&
           static_cast<std::int64_t>(ends_s_.size()) >= options_.min_samples;
}

LongRunReport LongRun::report(const std::vector<double>& invoke_us) const {
    LongRunReport report;
    report.options = options_;
    report.samples = static_cast<std::int64_t>(ends_s_.size());
    report.duration_s = ends_s_.back();
    const double invoke_s = std::accumulate(invoke_us.begin(), invoke_us.end(), 0.0) / 1e6;
    report.invoke_share_percent = 100 * std::min(1.0, invoke_s / std::max(report.duration_s, 1e-9));
    report.zones = sensors_.zones();
    report.clocks = sensors_.clocks();
    report.sensors_at_start = at_start_;
    std::vector<SensorReading> readings = readings_;
    readings.push_back(sensors_.read());

    const auto slice = [&](std::size_t from, std::size_t to) {
        return std::vector<double>(invoke_us.begin() + static_cast<std::ptrdiff_t>(from),
                                   invoke_us.begin() + static_cast<std::ptrdiff_t>(to));
    };
    for (std::size_t from = 0; from < ends_s_.size();) {
        const std::size_t bucket = bucket_of(ends_s_[from]);
        std::size_t to = from;
        while (to < ends_s_.size() && bucket_of(ends_s_[to]) == bucket) {
            ++to;
        }
        report.buckets.push_back({static_cast<double>(bucket) * options_.bucket_s,
                                  summarise(slice(from, to)), readings[report.buckets.size()]});
        from = to;
    }
    report.window_s = std::min(kMinuteS, report.duration_s / 2);
    const auto index_after = [&](double time_s) {
        return static_cast<std::size_t>(std::upper_bound(ends_s_.begin(), ends_s_.end(), time_s) -
                                        ends_s_.begin());
    };
    report.first = summary_of(slice(0, index_after(report.window_s)));
    report.last =
        summary_of(slice(index_after(report.duration_s - report.window_s), ends_s_.size()));
    if (report.first && report.last && report.first->p50 > 0) {
        report.p50_ratio = report.last->p50 / report.first->p50;
    }
    return report;
}

}  // namespace edgevit
