// Runs an .onnx artifact on the CPU through libonnxruntime.so, which is loaded while the program
// runs. Each back-end over it says how its artifacts' sessions are set.
#pragma once

#include <memory>

#include "backend.h"
#include "ort_session.h"

namespace edgevit::onnxruntime {

// Opens the artifact with these session configuration entries. Raises InputError for an artifact
// that is no .onnx file or that ONNX Runtime refuses, ToolMissing when its library is not there.
std::unique_ptr<Backend> open_onnxruntime(const Manifest& manifest, const BackendOptions& options,
                                          const Settings& settings);

}  // namespace edgevit::onnxruntime
