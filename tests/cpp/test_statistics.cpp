#include "statistics.h"

#include <doctest/doctest.h>

#include <stdexcept>

using namespace edgevit;

TEST_CASE("percentiles interpolate linearly, as numpy.percentile") {
    const std::vector<double> values = {1, 2, 3, 4};
    CHECK(percentile(values, 0) == doctest::Approx(1));
    CHECK(percentile(values, 50) == doctest::Approx(2.5));
    CHECK(percentile(values, 90) == doctest::Approx(3.7));
    CHECK(percentile(values, 100) == doctest::Approx(4));
    CHECK(percentile({7}, 99) == doctest::Approx(7));
    CHECK_THROWS_AS(percentile({}, 50), std::invalid_argument);
    CHECK_THROWS_AS(percentile(values, 101), std::invalid_argument);
}

TEST_CASE("a summary does not need its values in order") {
    const Summary summary = summarise({3, 1, 2});
    CHECK(summary.p50 == doctest::Approx(2));
    CHECK(summary.p90 == doctest::Approx(2.8));
    CHECK(summary.p99 == doctest::Approx(2.98));
    CHECK(summary.mean == doctest::Approx(2));
    CHECK(summary.min == doctest::Approx(1));
    CHECK(summary.max == doctest::Approx(3));
    CHECK(summary.count == 3);
}

TEST_CASE("ties go to the lower index") {
    const float values[] = {1, 3, 3, 2};
    CHECK(argmax(values, 4) == 1);
}

TEST_CASE("a comparison counts predictions and steps") {
    Comparison comparison(0.25F);
    const float ours[] = {1.0F, 0.5F, 0.0F};
    const float same[] = {1.0F, 0.25F, 0.0F};   // second logit one step lower
    const float other[] = {0.25F, 0.5F, 0.0F};  // first logit three steps lower
    comparison.add(ours, same, 3);
    comparison.add(ours, other, 3);
    CHECK(comparison.count() == 2);
    CHECK(comparison.same_top1() == 1);
    CHECK(comparison.max_abs_logit() == doctest::Approx(0.75));
    CHECK(comparison.mean_abs_logit() == doctest::Approx(1.0 / 6));
    CHECK(comparison.max_abs_step() == 3);
    CHECK(comparison.mean_abs_step() == doctest::Approx(4.0 / 6));
    CHECK(comparison.steps() == std::map<std::int64_t, std::int64_t>{{0, 4}, {1, 1}, {3, 1}});
}

TEST_CASE("without a step, differences are real numbers only") {
    Comparison comparison(0);
    const float a[] = {1, 2};
    const float b[] = {1, 1};
    comparison.add(a, b, 2);
    CHECK(comparison.steps().empty());
    CHECK(comparison.max_abs_logit() == doctest::Approx(1));
}
