// From the ONNX file to a plan for this GPU, or the plan kept from an earlier time.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "core/bytes.h"
#include "plan_cache.h"
#include "trt_logger.h"

namespace edgevit::tensorrt {

struct Gpu {
    std::string name;                // "Orin"
    std::string compute_capability;  // "8.7"
    std::string cuda_driver;         // "12.6"
    std::string multiprocessors;     // "8"
};

// The current CUDA device (the first that CUDA_VISIBLE_DEVICES leaves). Raises ToolMissing when
// there is none.
Gpu find_gpu();

// The version of the TensorRT library that is loaded: "10.3.0".
std::string tensorrt_version();

constexpr std::int64_t kDefaultWorkspaceMib = 1024;

// A plan for `gpu` whose layers use at most `workspace_mib` MiB of scratch memory, taken from
// `cache` (null: none) where it has one, else built and kept there. Takes seconds to minutes.
// Raises InputError when the file is not the one with that sha256 or TensorRT refuses it, Error
// when it cannot build it.
Bytes make_plan(Logger& logger, const std::filesystem::path& onnx, const std::string& onnx_sha256,
                const Gpu& gpu, std::int64_t workspace_mib, const PlanCache* cache);

}  // namespace edgevit::tensorrt
