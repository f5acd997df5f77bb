// Counts the operations of an ML Program by the device that Core ML plans for them. Plain C++.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "backend.h"

namespace edgevit::coreml {

// As MLComputePlan gives it.
struct PlannedOperation {
    std::string operator_name;          // with the opset before it: "ios17.conv"
    std::optional<std::string> device;  // "cpu", "gpu", "ane"; absent: the plan names none
};

// "ios17.conv" -> "conv", which is how the manifest counts operations.
std::string without_opset(const std::string& operator_name);

// Constants, and weights that are unpacked when the model is loaded, are left out: nothing of them
// happens in an inference. `delegated` is what the plan gives to the GPU or the Neural Engine;
// an operation without a device is counted in `total` and as "none".
OpReport report_placement(const std::vector<PlannedOperation>& operations);

}  // namespace edgevit::coreml
