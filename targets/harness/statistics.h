// Statistics as plain functions of vectors.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

namespace edgevit {

// The percentile (0 to 100) of values sorted in ascending order, interpolated linearly between
// the two nearest ranks: position p/100 * (n - 1), as numpy.percentile by default (type 7 of
// Hyndman and Fan, 1996). Raises std::invalid_argument for no values or p out of range.
double percentile(const std::vector<double>& sorted, double p);

struct Summary {
    double p50 = 0, p90 = 0, p99 = 0, mean = 0, min = 0, max = 0;
    std::int64_t count = 0;
};
Summary summarise(std::vector<double> values);

// The index of the largest of `classes` values; of equal ones the first, as numpy.argmax.
std::int64_t argmax(const float* values, std::size_t classes);

// One row of logits against another, over many images.
class Comparison {
  public:
    // `step` is the size of one output step of the artifact, 0 where its output is float32.
    explicit Comparison(float step) : step_(step) {}

    void add(const float* ours, const float* theirs, std::size_t classes);

    std::int64_t count() const { return count_; }
    std::int64_t same_top1() const { return same_top1_; }
    double max_abs_logit() const { return max_abs_; }
    double mean_abs_logit() const;

    // Differences in whole output steps -> how many logits; empty where the output is float32.
    const std::map<std::int64_t, std::int64_t>& steps() const { return steps_; }
    std::int64_t max_abs_step() const;
    double mean_abs_step() const;

  private:
    float step_;
    std::int64_t count_ = 0;
    std::int64_t logits_ = 0;
    std::int64_t same_top1_ = 0;
    double max_abs_ = 0;
    double sum_abs_ = 0;
    std::map<std::int64_t, std::int64_t> steps_;
};

}  // namespace edgevit
