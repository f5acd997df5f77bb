#include "op_report.h"

#include <set>

namespace edgevit::litert {
namespace {

bool is_inside_delegate(const Session::Event& event) {
    return event.type == kDelegateProfiledInvoke || event.type == kDelegateOperatorInvoke;
}

// The ops of one inference in running order, each with its time and one run.
std::vector<OpTime> ops_of(const std::vector<Session::Event>& events, std::size_t graph_ops) {
    std::vector<OpTime> times;
    std::int64_t partition = -1;
    for (const Session::Event& event : events) {
        const bool inside = is_inside_delegate(event);
        const bool is_node = event.type == kOperatorInvoke;
        if (!inside && !is_node) {
            continue;
        }
        const bool delegate_node = is_node && event.index >= graph_ops;
        partition += (inside && event.index == 0) || delegate_node ? 1 : 0;
        times.push_back({event.name, inside || delegate_node, partition,
                         static_cast<std::int64_t>(event.index), 1,
                         static_cast<std::int64_t>(event.elapsed_us)});
    }
    return times;
}

}  // namespace

OpReport report_ops(std::size_t ops, const std::vector<std::vector<Session::Event>>& runs) {
    OpReport report;
    report.total = static_cast<std::int64_t>(ops);
    for (const std::vector<Session::Event>& run : runs) {
        const std::vector<OpTime> times = ops_of(run, ops);
        if (report.times.empty()) {
            report.times = times;
            continue;
        }
        if (times.size() != report.times.size()) {
            report.reason = "the profiler saw different ops in different inferences";
            report.times.clear();
            return report;
        }
        for (std::size_t i = 0; i < times.size(); ++i) {
            report.times[i].runs += 1;
            report.times[i].total_us += times[i].total_us;
        }
    }
    if (report.times.empty()) {
        report.reason = "the profiler saw no ops";
        return report;
    }
    std::set<std::int64_t> own;
    std::int64_t partitions = 0;
    for (const OpTime& op : report.times) {
        if (op.delegated) {
            partitions = op.partition + 1;
        } else if (own.insert(op.index).second) {
            ++report.not_delegated[op.name];
        }
    }
    report.delegated = *report.total - static_cast<std::int64_t>(own.size());
    report.partitions = partitions;
    return report;
}

}  // namespace edgevit::litert
