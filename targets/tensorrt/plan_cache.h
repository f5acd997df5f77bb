// Keeps compiled plans in a folder that the user named. A plan belongs to one ONNX file, one GPU
// and one TensorRT, so a JSON file beside it says which; it is used again only where all of that is
// equal. Plain C++: needs neither TensorRT nor CUDA.
//
// The sha256 finds damage, not malice: a plan is code for the GPU, and whoever can write the folder
// can replace both files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "core/bytes.h"

namespace edgevit::tensorrt {

constexpr std::uint64_t kMaxPlanBytes = 2ULL << 30;
constexpr std::uint64_t kMaxTimingCacheBytes = 256 << 20;

// Everything that a plan depends on.
struct PlanKey {
    std::string onnx_sha256;
    std::string device;              // the GPU's name
    std::string compute_capability;  // "8.7"
    std::string tensorrt;            // "10.3.0"
    std::string cuda_driver;         // "12.6": the newest CUDA that the driver supports
    std::string multiprocessors;     // "8": boards of one name and capability may differ in them
    std::string settings;            // what the builder was told

    bool operator==(const PlanKey& other) const;
};

class PlanCache {
  public:
    // Raises InputError when there is no such folder, or none to write into.
    explicit PlanCache(std::filesystem::path folder);

    // The plan kept for exactly this key. Nothing when there is none, it was made for something
    // else, or either file is damaged: it has to be built again then.
    std::optional<Bytes> find(const PlanKey& key) const;

    // Replaces the plan kept for this ONNX file. Raises Error or InputError when it cannot write.
    void store(const PlanKey& key, ByteView plan) const;

    // Where TensorRT's own timings of kernels go, which make the next build faster.
    std::filesystem::path timing_file() const { return folder_ / "timing.cache"; }

  private:
    std::filesystem::path plan_file(const PlanKey& key) const;
    std::filesystem::path record_file(const PlanKey& key) const;

    std::filesystem::path folder_;
};

// Writes a file that appears whole or not at all.
void write_whole(const std::filesystem::path& path, ByteView bytes);

}  // namespace edgevit::tensorrt
