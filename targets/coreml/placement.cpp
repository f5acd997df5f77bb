#include "placement.h"

namespace edgevit::coreml {
namespace {

bool is_known_before_running(const std::string& name) {
    const std::string folded = "constexpr_";
    return name == "const" || name.compare(0, folded.size(), folded) == 0;
}

}  // namespace

std::string without_opset(const std::string& operator_name) {
    const std::size_t dot = operator_name.find('.');
    const bool has_opset = operator_name.compare(0, 3, "ios") == 0 && dot != std::string::npos &&
                           dot > 3 && operator_name.find_first_not_of("0123456789", 3) == dot;
    return has_opset ? operator_name.substr(dot + 1) : operator_name;
}

OpReport report_placement(const std::vector<PlannedOperation>& operations) {
    OpReport report;
    report.total = report.delegated = 0;
    report.devices.emplace();
    for (const PlannedOperation& operation : operations) {
        const std::string name = without_opset(operation.operator_name);
        if (is_known_before_running(name)) {
            continue;
        }
        OpTime op;
        op.name = name;
        op.device = operation.device;
        op.delegated = op.device && *op.device != "cpu";
        op.index = *report.total;
        ++*report.total;
        ++(*report.devices)[op.device.value_or("none")];
        if (op.delegated) {
            ++*report.delegated;
        } else if (op.device) {
            ++report.not_delegated[name];
        }
        report.times.push_back(op);
    }
    report.reason = "MLComputePlan tells where operations run, not how it partitions them";
    return report;
}

}  // namespace edgevit::coreml
