#include "trt_builder.h"

#include <NvInfer.h>
#include <NvOnnxParser.h>

#include <cstdint>
#include <memory>
#include <optional>

#include "core/errors.h"
#include "core/sha256.h"
#include "cuda.h"

namespace edgevit::tensorrt {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kMaxOnnxBytes = 2147483647;  // protobuf's own limit

// Part of a kept plan's key: change it with anything that build() tells the builder.
std::string settings_of(std::int64_t workspace_mib) {
    return "strongly typed, workspace " + std::to_string(workspace_mib) +
           " MiB, detailed verbosity";
}

std::string dotted(int value, int high, int low) {
    return std::to_string(value / high) + "." + std::to_string(value % high / low);
}

Bytes read_onnx(const fs::path& path, const std::string& sha256) {
    Bytes onnx = read_file(path, kMaxOnnxBytes);
    const std::string actual =
        sha256_hex({reinterpret_cast<const char*>(onnx.data()), onnx.size()});
    if (actual != sha256) {
        throw InputError(path.string() + ": changed while it was being read: its sha256 is " +
                         actual + ", expected " + sha256);
    }
    return onnx;
}

std::string parser_errors(const nvonnxparser::IParser& parser) {
    std::string text;
    for (int i = 0; i < parser.getNbErrors(); ++i) {
        const nvonnxparser::IParserError* error = parser.getError(i);
        text += (text.empty() ? "" : "; ") + ("node " + std::to_string(error->node())) + ": " +
                error->desc();
    }
    return text;
}

// TensorRT's timings of kernels, from a file and back. A missing, damaged or foreign file is the
// same as none.
class TimingCache {
  public:
    TimingCache(nvinfer1::IBuilderConfig& config, fs::path file)
        : config_(config), file_(std::move(file)) {
        Bytes bytes;
        if (fs::is_regular_file(file_) && fs::file_size(file_) <= kMaxTimingCacheBytes) {
            bytes = read_file(file_, kMaxTimingCacheBytes);
        }
        cache_.reset(config_.createTimingCache(bytes.data(), bytes.size()));
        if (cache_ == nullptr || !config_.setTimingCache(*cache_, false)) {
            cache_.reset(config_.createTimingCache(nullptr, 0));
            if (cache_ == nullptr || !config_.setTimingCache(*cache_, false)) {
                throw Error("TensorRT: cannot make a timing cache");
            }
        }
    }

    void save() const {
        const std::unique_ptr<nvinfer1::IHostMemory> bytes(config_.getTimingCache()->serialize());
        if (bytes != nullptr) {
            write_whole(file_, {static_cast<const std::uint8_t*>(bytes->data()), bytes->size()});
        }
    }

  private:
    nvinfer1::IBuilderConfig& config_;
    fs::path file_;
    std::unique_ptr<nvinfer1::ITimingCache> cache_;
};

// Types are those of the ONNX, quantized where it has Q/DQ: TensorRT 10 has to be told so, 11 knows
// nothing else.
std::uint32_t network_flags() {
#if NV_TENSORRT_MAJOR < 11
    using Flag = nvinfer1::NetworkDefinitionCreationFlag;
    return std::uint32_t{1} << static_cast<std::uint32_t>(Flag::kSTRONGLY_TYPED);
#else
    return 0;
#endif
}

Bytes build(Logger& logger, const fs::path& path, const Bytes& onnx, std::int64_t workspace_mib,
            const PlanCache* cache) {
    // In this order, so that what was made of another is destroyed before it.
    const std::unique_ptr<nvinfer1::IBuilder> builder(nvinfer1::createInferBuilder(logger));
    if (builder == nullptr) {
        throw Error("TensorRT: cannot make a builder: " + logger.take_errors());
    }
    const std::unique_ptr<nvinfer1::INetworkDefinition> network(
        builder->createNetworkV2(network_flags()));
    const std::unique_ptr<nvinfer1::IBuilderConfig> config(builder->createBuilderConfig());
    if (network == nullptr || config == nullptr) {
        throw Error("TensorRT: cannot make a network: " + logger.take_errors());
    }
    const std::unique_ptr<nvonnxparser::IParser> parser(
        nvonnxparser::createParser(*network, logger));
    if (parser == nullptr) {
        throw Error("TensorRT: cannot make an ONNX parser: " + logger.take_errors());
    }
    if (!parser->parse(onnx.data(), onnx.size())) {
        throw InputError(path.string() + ": TensorRT " + tensorrt_version() +
                         " cannot read it: " + parser_errors(*parser));
    }
    config->setMemoryPoolLimit(nvinfer1::MemoryPoolType::kWORKSPACE,
                               static_cast<std::size_t>(workspace_mib) << 20);
    config->setProfilingVerbosity(nvinfer1::ProfilingVerbosity::kDETAILED);
    std::optional<TimingCache> timings;
    if (cache != nullptr) {
        timings.emplace(*config, cache->timing_file());
    }
    const std::unique_ptr<nvinfer1::IHostMemory> plan(
        builder->buildSerializedNetwork(*network, *config));
    if (plan == nullptr) {
        throw Error(path.string() + ": TensorRT cannot build a plan: " + logger.take_errors());
    }
    if (timings) {
        timings->save();
    }
    const auto* bytes = static_cast<const std::uint8_t*>(plan->data());
    return {bytes, bytes + plan->size()};
}

}  // namespace

Gpu find_gpu() {
    int count = 0, device = 0, driver = 0;
    const cudaError_t status = cudaGetDeviceCount(&count);
    if (status != cudaSuccess || count == 0) {
        throw ToolMissing(std::string("no NVIDIA GPU can be used here: ") +
                          (status != cudaSuccess ? cudaGetErrorString(status) : "none is found") +
                          "; `--backend onnxruntime` runs the same ONNX on the CPU");
    }
    cudaDeviceProp properties{};
    check_cuda(cudaGetDevice(&device), "finding the GPU");
    check_cuda(cudaGetDeviceProperties(&properties, device), "describing the GPU");
    check_cuda(cudaDriverGetVersion(&driver), "reading the driver's version");
    return {properties.name,
            std::to_string(properties.major) + "." + std::to_string(properties.minor),
            dotted(driver, 1000, 10), std::to_string(properties.multiProcessorCount)};
}

std::string tensorrt_version() {
    const int version = getInferLibVersion();
    return dotted(version, 10000, 100) + "." + std::to_string(version % 100);
}

Bytes make_plan(Logger& logger, const fs::path& onnx, const std::string& onnx_sha256,
                const Gpu& gpu, std::int64_t workspace_mib, const PlanCache* cache) {
    const PlanKey key = {onnx_sha256,
                         gpu.name,
                         gpu.compute_capability,
                         tensorrt_version(),
                         gpu.cuda_driver,
                         gpu.multiprocessors,
                         settings_of(workspace_mib)};
    if (cache != nullptr) {
        if (std::optional<Bytes> kept = cache->find(key)) {
            return std::move(*kept);
        }
    }
    Bytes plan = build(logger, onnx, read_onnx(onnx, onnx_sha256), workspace_mib, cache);
    if (cache != nullptr) {
        cache->store(key, plan);
    }
    return plan;
}

}  // namespace edgevit::tensorrt
