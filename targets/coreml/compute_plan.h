// Where Core ML plans to run each operation. Objective-C++.
#pragma once

#import <CoreML/CoreML.h>

#include "backend.h"

namespace edgevit::coreml {

// Of a compiled model (.mlmodelc). Nothing is run or timed. Where there is no plan, because the OS
// is older than MLComputePlan or Core ML makes none, the report is empty and says why.
OpReport planned_placement(NSURL* compiled_model, MLModelConfiguration* configuration);

}  // namespace edgevit::coreml
