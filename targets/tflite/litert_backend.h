// What every back-end that runs a .tflite by LiteRT is made of.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "backend.h"
#include "litert_session.h"

namespace edgevit::litert {

// What the back-ends differ in. The accelerator alone runs the model, or opening fails.
struct LiteRtSettings {
    ModelSettings model = {};
    std::filesystem::path file;              // what runs, unless the options hold its bytes
    std::optional<std::string> device = {};  // which accelerator it is, for the result
    std::string advice = {};  // what to do where the accelerator cannot run it; not for the CPU
};

// "cpu", "gpu" or "npu".
std::string accelerator_name(Accelerator accelerator);

// Raises InputError for a file that LiteRT or check_model() refuses or that is not what the
// manifest says, ToolMissing where LiteRT is not here or the accelerator cannot run all of it.
std::unique_ptr<Backend> open_litert(const Manifest& manifest, const BackendOptions& options,
                                     const LiteRtSettings& settings);

}  // namespace edgevit::litert
