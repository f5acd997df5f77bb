// A stand-in, not NVIDIA's: the part of TensorRT's C++ API that targets/tensorrt uses.
//
// It finds misspelt names and wrong types, and lets fake_runtime.cpp stand behind the back-end. It
// does not show that the back-end works with TensorRT. -DNV_TENSORRT_MAJOR=10 or 11 picks what
// differs. Written from the published API; real classes are not abstract.
#pragma once

#include <cstddef>
#include <cstdint>

#ifndef NV_TENSORRT_MAJOR
#error "say which API: -DNV_TENSORRT_MAJOR=10 or 11"
#endif

struct CUstream_st;
using cudaStream_t = CUstream_st*;

extern "C" std::int32_t getInferLibVersion() noexcept;

namespace nvinfer1 {

using AsciiChar = char;
using NetworkDefinitionCreationFlags = std::uint32_t;

struct Dims64 {
    static constexpr std::int32_t MAX_DIMS = 8;
    std::int32_t nbDims;
    std::int64_t d[MAX_DIMS];
};
using Dims = Dims64;

enum class DataType : std::int32_t {
    kFLOAT = 0,
    kHALF = 1,
    kINT8 = 2,
    kINT32 = 3,
    kBOOL = 4,
    kUINT8 = 5
};
enum class TensorFormat : std::int32_t { kLINEAR = 0, kCHW4 = 3 };
enum class TensorIOMode : std::int32_t { kNONE = 0, kINPUT = 1, kOUTPUT = 2 };
enum class MemoryPoolType : std::int32_t { kWORKSPACE = 0 };
enum class ProfilingVerbosity : std::int32_t { kLAYER_NAMES_ONLY = 0, kNONE = 1, kDETAILED = 2 };
enum class LayerInformationFormat : std::int32_t { kONELINE = 0, kJSON = 1 };
#if NV_TENSORRT_MAJOR < 11
enum class NetworkDefinitionCreationFlag : std::int32_t {
    kEXPLICIT_BATCH = 0,
    kSTRONGLY_TYPED = 1
};
#endif

class ILogger {
  public:
    enum class Severity : std::int32_t {
        kINTERNAL_ERROR = 0,
        kERROR = 1,
        kWARNING = 2,
        kINFO = 3,
        kVERBOSE = 4
    };
    virtual void log(Severity severity, AsciiChar const* msg) noexcept = 0;
    virtual ~ILogger() = default;
};

class IProfiler {
  public:
    virtual void reportLayerTime(char const* layerName, float ms) noexcept = 0;
    virtual ~IProfiler() noexcept = default;
};

class IHostMemory {
  public:
    virtual ~IHostMemory() noexcept = default;
    virtual void* data() const noexcept = 0;
    virtual std::size_t size() const noexcept = 0;
};

class ITimingCache {
  public:
    virtual ~ITimingCache() noexcept = default;
    virtual IHostMemory* serialize() const noexcept = 0;
};

class IBuilderConfig {
  public:
    virtual ~IBuilderConfig() noexcept = default;
    virtual void setMemoryPoolLimit(MemoryPoolType pool, std::size_t poolSize) noexcept = 0;
    virtual void setProfilingVerbosity(ProfilingVerbosity verbosity) noexcept = 0;
    virtual ITimingCache* createTimingCache(void const* blob, std::size_t size) const noexcept = 0;
    virtual bool setTimingCache(ITimingCache const& cache, bool ignoreMismatch) noexcept = 0;
    virtual ITimingCache const* getTimingCache() const noexcept = 0;
};

class INetworkDefinition {
  public:
    virtual ~INetworkDefinition() noexcept = default;
};

class IBuilder {
  public:
    virtual ~IBuilder() noexcept = default;
    virtual INetworkDefinition* createNetworkV2(NetworkDefinitionCreationFlags flags) noexcept = 0;
    virtual IBuilderConfig* createBuilderConfig() noexcept = 0;
    virtual IHostMemory* buildSerializedNetwork(INetworkDefinition& network,
                                                IBuilderConfig& config) noexcept = 0;
};

class IExecutionContext {
  public:
    virtual ~IExecutionContext() noexcept = default;
    virtual bool setTensorAddress(char const* tensorName, void* data) noexcept = 0;
    virtual bool enqueueV3(cudaStream_t stream) noexcept = 0;
    virtual void setProfiler(IProfiler* profiler) noexcept = 0;
    virtual bool setNvtxVerbosity(ProfilingVerbosity verbosity) noexcept = 0;
};

class IEngineInspector {
  public:
    virtual ~IEngineInspector() noexcept = default;
    virtual char const* getEngineInformation(LayerInformationFormat format) const noexcept = 0;
};

class ICudaEngine {
  public:
    virtual ~ICudaEngine() noexcept = default;
    virtual std::int32_t getNbIOTensors() const noexcept = 0;
    virtual char const* getIOTensorName(std::int32_t index) const noexcept = 0;
    virtual TensorIOMode getTensorIOMode(char const* tensorName) const noexcept = 0;
    virtual DataType getTensorDataType(char const* tensorName) const noexcept = 0;
    virtual Dims getTensorShape(char const* tensorName) const noexcept = 0;
    virtual TensorFormat getTensorFormat(char const* tensorName) const noexcept = 0;
    virtual IExecutionContext* createExecutionContext() noexcept = 0;
    virtual IEngineInspector* createEngineInspector() const noexcept = 0;
};

class IRuntime {
  public:
    virtual ~IRuntime() noexcept = default;
    virtual ICudaEngine* deserializeCudaEngine(void const* blob, std::size_t size) noexcept = 0;
};

IBuilder* createInferBuilder(ILogger& logger) noexcept;
IRuntime* createInferRuntime(ILogger& logger) noexcept;

}  // namespace nvinfer1
