// Which ops ONNX Runtime ran and for how long, read from the JSON that its profiler writes.
#pragma once

#include <string>

#include "backend.h"

namespace edgevit::onnxruntime {

// `text` is an array of trace events; of each node's kernel times the first is left out, the
// warm-up. `runs` is how many were made after it. `delegated` stays empty: there is no delegate.
// Raises Error when the text is no such array, or a node did not run every time.
OpReport report_profile(const std::string& text, int runs);

}  // namespace edgevit::onnxruntime
