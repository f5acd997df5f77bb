#include "op_report.h"

#include <doctest/doctest.h>

using namespace edgevit;
using edgevit::litert::kDelegateProfiledInvoke;
using edgevit::litert::kOperatorInvoke;
using edgevit::litert::report_ops;
using Events = std::vector<edgevit::litert::Session::Event>;

TEST_CASE("ops the runtime invokes itself are not delegated, all others are") {
    const Events run = {{"Invoke", 1, 0, 90},
                        {"Convolution", kDelegateProfiledInvoke, 0, 10},
                        {"GELU", kOperatorInvoke, 1, 3},
                        {"Add", kDelegateProfiledInvoke, 0, 2},
                        {"Mean", kDelegateProfiledInvoke, 1, 4},
                        {"GELU", kOperatorInvoke, 4, 5}};
    const OpReport report = report_ops(5, {run, run});
    CHECK(report.total == 5);
    CHECK(report.delegated == 3);
    CHECK(report.partitions == 2);
    CHECK(report.not_delegated == std::map<std::string, std::int64_t>{{"GELU", 2}});
    CHECK(report.reason.empty());
    REQUIRE(report.times.size() == 5);
    CHECK(report.times[3].partition == 1);
    CHECK(report.times[3].runs == 2);
    CHECK(report.times[3].total_us == 8);
}

TEST_CASE("a delegate that lists no ops of its own is one partition a node") {
    const OpReport report = report_ops(
        3, {{{"TfLiteDelegate", kOperatorInvoke, 3, 10}, {"GELU", kOperatorInvoke, 2, 1}}});
    CHECK(report.delegated == 2);
    CHECK(report.partitions == 1);
}

TEST_CASE("no delegate at all") {
    const OpReport report =
        report_ops(2, {{{"CONV_2D", kOperatorInvoke, 0, 10}, {"GELU", kOperatorInvoke, 1, 1}}});
    CHECK(report.delegated == 0);
    CHECK(report.partitions == 0);
}

TEST_CASE("what the profiler does not tell stays empty, with the reason") {
    const OpReport none = report_ops(2, {{}});
    CHECK(none.total == 2);
    CHECK_FALSE(none.delegated);
    CHECK(none.reason == "the profiler saw no ops");
    const OpReport changing = report_ops(2, {{{"GELU", kOperatorInvoke, 0, 1}}, {}});
    CHECK_FALSE(changing.partitions);
    CHECK(changing.reason != "");
}
