#include "long_run.h"

#include <doctest/doctest.h>

#include "early_stop.h"
#include "support.h"

using namespace edgevit;
using namespace edgevit::test;

namespace {

// A sysfs with two thermal zones, one of which cannot be read, and one clock.
void write_sysfs(const fs::path& root, const std::string& millidegrees) {
    const fs::path thermal = root / "class" / "thermal";
    write_text(thermal / "thermal_zone10" / "type", "gpu-thermal\n");
    write_text(thermal / "thermal_zone10" / "temp", "\n");
    write_text(thermal / "thermal_zone2" / "type", "cpu-thermal\n");
    write_text(thermal / "thermal_zone2" / "temp", millidegrees + "\n");
    write_text(thermal / "cooling_device0" / "type", "fan\n");
    write_text(root / "devices/system/cpu/cpufreq/policy4/scaling_cur_freq", "1800000\n");
}

}  // namespace

TEST_CASE("sensors come by number, and one that cannot be read is empty") {
    const TemporaryFolder folder;
    write_sysfs(folder.path(), "41500");
    const Sensors sensors(folder.path());
    CHECK(sensors.zones() == std::vector<std::string>{"cpu-thermal", "gpu-thermal"});
    CHECK(sensors.clocks() == std::vector<std::string>{"policy4"});
    SensorReading reading = sensors.read();
    REQUIRE(reading.temperatures_c.size() == 2);
    CHECK(*reading.temperatures_c[0] == doctest::Approx(41.5));
    CHECK_FALSE(reading.temperatures_c[1]);
    CHECK(reading.frequencies_khz == std::vector<std::optional<std::int64_t>>{1800000});
    write_sysfs(folder.path(), "-2000x");
    CHECK_FALSE(sensors.read().temperatures_c[0]);
    const Sensors none(folder / "nowhere");
    CHECK(none.zones().empty());
    CHECK(none.read().frequencies_khz.empty());
}

TEST_CASE("a long run is cut into buckets and its end compared with its beginning") {
    const TemporaryFolder folder;
    write_sysfs(folder.path(), "30000");
    LongRunOptions options;
    options.min_duration_s = 240;
    options.bucket_s = 60;
    options.sysfs = folder.path();
    LongRun run(options);
    CHECK_FALSE(run.is_over());
    std::vector<double> invoke_us;
    for (int second = 1; second <= 240; ++second) {
        if (second >= 100 && second < 180) {
            continue;  // nothing ended in the third minute
        }
        CHECK_FALSE(run.is_over());
        if (second == 185) {
            write_sysfs(folder.path(), "70000");
        }
        run.add(second);
        invoke_us.push_back(second <= 60 ? 1000 : 3000);
    }
    CHECK(run.is_over());
    const LongRunReport report = run.report(invoke_us);
    CHECK(report.samples == 160);
    REQUIRE(report.buckets.size() == 4);
    CHECK(report.buckets[0].start_s == 0);
    CHECK(report.buckets[0].invoke_us.count == 59);  // second 60 begins the next
    CHECK(report.buckets[1].invoke_us.count == 40);
    CHECK(report.buckets[2].start_s == 180);
    CHECK(report.buckets[3].invoke_us.count == 1);
    CHECK(*report.sensors_at_start.temperatures_c[0] == doctest::Approx(30));
    CHECK(*report.buckets[1].sensors.temperatures_c[0] == doctest::Approx(30));
    CHECK(*report.buckets[2].sensors.temperatures_c[0] == doctest::Approx(70));
    CHECK(report.window_s == 60);
    CHECK(report.first->count == 60);
    CHECK(report.last->count == 60);
    CHECK(*report.p50_ratio == doctest::Approx(3));
    CHECK(report.invoke_share_percent == doctest::Approx((60 * 1000 + 100 * 3000) / 240e4));
}

TEST_CASE("windows of a short run are halves, and samples are asked for beside time") {
    LongRunOptions options;
    options.min_samples = 3;
    LongRun run(options);
    run.add(1);
    run.add(9);
    CHECK_FALSE(run.is_over());
    run.add(10);
    CHECK(run.is_over());
    const LongRunReport report = run.report({5, 6, 8});
    CHECK(report.window_s == 5);
    CHECK(report.first->count == 1);
    CHECK(report.last->count == 2);
    CHECK(*report.p50_ratio == doctest::Approx(7.0 / 5));
}

TEST_CASE("a gate is decided when the images left cannot change it") {
    // 100 images, 90 right by float: 89 right and 95 agreeing are needed.
    EarlyStop stop({1.0, 95.0}, 100, 90);
    for (int i = 0; i < 89; ++i) {
        stop.add(true, true);
        CHECK(stop.verdict() == Verdict::open);
    }
    for (int i = 0; i < 5; ++i) {
        stop.add(false, true);
        CHECK(stop.verdict() == Verdict::open);
    }
    stop.add(false, true);
    CHECK(stop.verdict() == Verdict::holds);
    CHECK(stop.images_run() == 95);
}

TEST_CASE("a gate fails as soon as the best end is not good enough") {
    EarlyStop accuracy({1.0, 0.0}, 100, 90);
    for (int i = 0; i < 11; ++i) {
        accuracy.add(false, true);
        CHECK(accuracy.verdict() == Verdict::open);
    }
    accuracy.add(false, true);
    CHECK(accuracy.verdict() == Verdict::fails);
    EarlyStop agreement({100.0, 99.0}, 200, 0);
    agreement.add(true, false);
    agreement.add(true, false);
    CHECK(agreement.verdict() == Verdict::open);
    agreement.add(true, false);
    CHECK(agreement.verdict() == Verdict::fails);
    CHECK(EarlyStop({0, 0}, 0, 0).verdict() == Verdict::open);
}

TEST_CASE("the verdict is the same for every order's end: what all images say") {
    for (int right = 0; right <= 20; ++right) {
        EarlyStop stop({10.0, 0.0}, 20, 15);
        for (int i = 0; i < 20; ++i) {
            stop.add(i < right, true);
        }
        CHECK(stop.verdict() == (right >= 13 ? Verdict::holds : Verdict::fails));
    }
}
