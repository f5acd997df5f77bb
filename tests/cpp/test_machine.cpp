#include "machine.h"

#include <doctest/doctest.h>

using namespace edgevit;

TEST_CASE("the machine describes itself") {
    const Machine machine = describe_machine();
    CHECK(machine.cpu != "");
    CHECK(machine.cores >= 1);
    CHECK(machine.architecture != "");
    CHECK(machine.kernel.substr(0, 6) == "Linux ");
}

TEST_CASE("peak memory is at least what this process holds") {
    CHECK(peak_memory_bytes().value_or(0) > 1'000'000);
}

TEST_CASE("the time is UTC, in ISO 8601") {
    const std::string now = utc_now();
    REQUIRE(now.size() == 20);
    CHECK(now[10] == 'T');
    CHECK(now[19] == 'Z');
}
