#include "compute_plan.h"

#include <dispatch/dispatch.h>

#include "guarded.h"
#include "placement.h"

namespace edgevit::coreml {
namespace {

constexpr std::int64_t kPlanTimeout_s = 120;

OpReport without_plan(const std::string& reason) {
    OpReport report;
    report.reason = reason;
    return report;
}

API_AVAILABLE(macos(14.4), ios(17.4))
std::optional<std::string> device_name(MLComputePlanDeviceUsage* usage) {
    const id<MLComputeDeviceProtocol> device = usage.preferredComputeDevice;
    if ([device isKindOfClass:[MLCPUComputeDevice class]]) {
        return "cpu";
    }
    if ([device isKindOfClass:[MLGPUComputeDevice class]]) {
        return "gpu";
    }
    if ([device isKindOfClass:[MLNeuralEngineComputeDevice class]]) {
        return "ane";
    }
    return std::nullopt;
}

API_AVAILABLE(macos(14.4), ios(17.4))
OpReport placement_of(MLComputePlan* plan) {
    MLModelStructureProgramFunction* main = plan.modelStructure.program.functions[@"main"];
    if (main == nil) {
        return without_plan("the compiled model is no ML Program with a function 'main'");
    }
    std::vector<PlannedOperation> operations;
    for (MLModelStructureProgramOperation* operation in main.block.operations) {
        operations.push_back(
            {text(operation.operatorName),
             device_name([plan computeDeviceUsageForMLProgramOperation:operation])});
    }
    return report_placement(operations);
}

API_AVAILABLE(macos(14.4), ios(17.4))
OpReport load_placement(NSURL* compiled_model, MLModelConfiguration* configuration) {
    __block MLComputePlan* plan = nil;
    __block NSError* plan_error = nil;
    const dispatch_semaphore_t done = dispatch_semaphore_create(0);
    // On a thread of Core ML's: only plain assignments here, nothing that could throw.
    [MLComputePlan loadContentsOfURL:compiled_model
                       configuration:configuration
                   completionHandler:^(MLComputePlan* loaded, NSError* error) {
                     plan = loaded;
                     plan_error = error;
                     dispatch_semaphore_signal(done);
                   }];
    constexpr std::int64_t wait_ns = kPlanTimeout_s * std::int64_t{NSEC_PER_SEC};
    if (dispatch_semaphore_wait(done, dispatch_time(DISPATCH_TIME_NOW, wait_ns)) != 0) {
        return without_plan("Core ML made no compute plan in " + std::to_string(kPlanTimeout_s) +
                            " s");
    }
    if (plan == nil) {
        return without_plan(failure("Core ML makes no compute plan", plan_error));
    }
    return placement_of(plan);
}

}  // namespace

OpReport planned_placement(NSURL* compiled_model, MLModelConfiguration* configuration) {
    OpReport report = without_plan("MLComputePlan needs macOS 14.4 or iOS 17.4");
    if (@available(macOS 14.4, iOS 17.4, *)) {
        guarded("asking Core ML for its compute plan",
                [&] { report = load_placement(compiled_model, configuration); });
    }
    return report;
}

}  // namespace edgevit::coreml
