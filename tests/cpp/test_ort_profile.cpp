#include "profile_report.h"

#include <doctest/doctest.h>

#include "support.h"

using namespace edgevit;
using namespace edgevit::test;
using edgevit::onnxruntime::report_profile;

namespace {

json event(const std::string& name, const std::string& op, const std::string& index, int us) {
    return {{"cat", "Node"},
            {"name", name + "_kernel_time"},
            {"dur", us},
            {"args", {{"op_name", op}, {"node_index", index}}}};
}

}  // namespace

TEST_CASE("nodes are timed without their first run, in running order") {
    const json session = {{"cat", "Session"}, {"name", "model_run"}, {"dur", 99}};
    const json run = {event("conv", "QLinearConv", "4", 10), event("gelu", "Gelu", "2", 3)};
    const json text = {session,
                       event("conv", "QLinearConv", "4", 1000),
                       event("gelu", "Gelu", "2", 1000),
                       run[0],
                       run[1],
                       run[0],
                       run[1]};
    const OpReport report = report_profile(text.dump(), 2);
    CHECK(report.total == 2);
    CHECK_FALSE(report.delegated);
    CHECK_FALSE(report.precisions);
    CHECK(report.reason == "ONNX Runtime's CPU provider runs every op itself");
    REQUIRE(report.times.size() == 2);
    CHECK(report.times[0].name == "conv");
    CHECK(report.times[0].type == "QLinearConv");
    CHECK(report.times[0].runs == 2);
    CHECK(report.times[0].total_us == 20);
    CHECK(report.times[1].index == 1);
    CHECK(report.times[1].total_us == 6);
}

TEST_CASE("nodes of one name are told apart by their index") {
    const json text = {event("x", "Add", "1", 1), event("x", "Mul", "2", 1)};
    CHECK(report_profile(text.dump(), 0).total == 2);
}

TEST_CASE("a profile without nodes says so") {
    const OpReport report = report_profile(R"([3, {"cat": 7}, {"cat": "Node", "name": "x"}])", 1);
    CHECK_FALSE(report.total);
    CHECK(report.reason == "ONNX Runtime's profile lists no nodes");
}

TEST_CASE("what is no profile is an internal error") {
    json bad = event("x", "Add", "1", -1);
    const auto message = [](const std::string& text) {
        try {
            report_profile(text, 1);
        } catch (const Error& error) {
            CHECK(error.exit_code() == 1);
            return std::string(error.what());
        }
        return std::string();
    };
    CHECK(contains(message("{"), "not valid JSON"));
    CHECK(contains(message("{}"), "not an array"));
    CHECK(contains(message(json::array({bad}).dump()), "dur"));
    bad = event("x", "Add", "1", 1);
    CHECK(contains(message(json::array({bad}).dump()), "x ran 0 times"));
    bad["args"].erase("op_name");
    CHECK(contains(message(json::array({bad}).dump()), "args.op_name"));
}
