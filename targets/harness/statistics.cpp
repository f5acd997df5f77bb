#include "statistics.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <numeric>
#include <stdexcept>

namespace edgevit {

double percentile(const std::vector<double>& sorted, double p) {
    if (sorted.empty() || !(p >= 0 && p <= 100)) {
        throw std::invalid_argument("percentile needs values and p from 0 to 100");
    }
    const double position = p / 100 * static_cast<double>(sorted.size() - 1);
    const auto below = static_cast<std::size_t>(position);
    const std::size_t above = std::min(below + 1, sorted.size() - 1);
    const double fraction = position - static_cast<double>(below);
    return sorted[below] + (sorted[above] - sorted[below]) * fraction;
}

Summary summarise(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    Summary summary;
    summary.p50 = percentile(values, 50);
    summary.p90 = percentile(values, 90);
    summary.p99 = percentile(values, 99);
    summary.min = values.front();
    summary.max = values.back();
    summary.count = static_cast<std::int64_t>(values.size());
    summary.mean =
        std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
    return summary;
}

std::int64_t argmax(const float* values, std::size_t classes) {
    return std::max_element(values, values + classes) - values;
}

void Comparison::add(const float* ours, const float* theirs, std::size_t classes) {
    ++count_;
    same_top1_ += argmax(ours, classes) == argmax(theirs, classes) ? 1 : 0;
    logits_ += static_cast<std::int64_t>(classes);
    for (std::size_t i = 0; i < classes; ++i) {
        const double difference = static_cast<double>(ours[i]) - static_cast<double>(theirs[i]);
        max_abs_ = std::max(max_abs_, std::fabs(difference));
        sum_abs_ += std::fabs(difference);
        if (step_ > 0) {
            ++steps_[std::llround(difference / static_cast<double>(step_))];
        }
    }
}

double Comparison::mean_abs_logit() const {
    return logits_ == 0 ? 0.0 : sum_abs_ / static_cast<double>(logits_);
}

std::int64_t Comparison::max_abs_step() const {
    std::int64_t largest = 0;
    for (const auto& [step, logits] : steps_) {
        largest = std::max(largest, std::abs(step));
    }
    return largest;
}

double Comparison::mean_abs_step() const {
    double sum = 0;
    for (const auto& [step, logits] : steps_) {
        sum += static_cast<double>(std::abs(step)) * static_cast<double>(logits);
    }
    return logits_ == 0 ? 0.0 : sum / static_cast<double>(logits_);
}

}  // namespace edgevit
