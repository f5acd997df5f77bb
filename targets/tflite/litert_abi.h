// Our own declarations of the part of LiteRT's C ABI (runtime 2.x) that the back-end calls. The
// wheel ships the library without headers; every function is looked up by name when it is loaded.
#pragma once

#include <cstddef>
#include <cstdint>

namespace edgevit::litert {

using Handle = void*;
using Status = int;  // 0: done

enum ElementType : std::int32_t { kFloat32 = 1, kUInt8 = 3, kInt8 = 9 };
enum Accelerator : int { kCpu = 1, kGpu = 2, kNpu = 4 };
enum LockMode : int { kRead = 0, kWrite = 1 };
enum QuantizationType : int { kNoQuantization = 0, kPerTensor = 1 };
enum EnvironmentTag : std::int32_t {
    kDispatchLibraryDir = 1,
    kAutoRegisterAccelerators = 24,
    kMinLogSeverity = 25
};
enum AnyType : std::int32_t { kAnyInt = 2, kAnyText = 8 };
constexpr std::int64_t kLogErrors = 3;

struct Layout {
    unsigned rank : 7;
    unsigned has_strides : 1;
    std::int32_t dimensions[8];
    std::uint32_t strides[8];
};

struct RankedTensorType {
    std::int32_t element_type;
    Layout layout;
};

struct Any {
    std::int32_t type;
    union {
        bool boolean;
        std::int64_t integer;
        double real;
        const char* text;  // copied when the environment is created
        const void* pointer;
    };
};

struct EnvironmentOption {
    std::int32_t tag;
    Any value;
};

struct PerTensorQuantization {
    float scale;
    std::int64_t zero_point;
};

enum EventType : std::int32_t {
    kOperatorInvoke = 1 << 1,          // a node of the graph; metadata1 is its index
    kDelegateOperatorInvoke = 1 << 2,  // an op inside a delegate; metadata1 is its index there
    kDelegateProfiledInvoke = 1 << 3,  // the same, as XNNPACK reports it
};

struct MemoryUsage {
    std::int64_t fields[3];
};

struct ProfiledEvent {
    const char* tag;  // owned by the profiler
    std::int32_t type;
    std::uint64_t start_us;
    std::uint64_t elapsed_us;
    MemoryUsage before;
    MemoryUsage after;
    std::uint64_t metadata1;
    std::uint64_t metadata2;
    std::int32_t source;
};

static_assert(
    sizeof(void*) == 8,
    "LiteRT 2.x has a C ABI for 64-bit processors only: build for arm64-v8a or x86_64 (in "
    "Android: ndk { abiFilters }), not for a 32-bit one");
static_assert(sizeof(Layout) == 68 && sizeof(RankedTensorType) == 72 && sizeof(Any) == 16 &&
                  sizeof(EnvironmentOption) == 24 && sizeof(ProfiledEvent) == 104,
              "these must lie in memory as the library has them");

// X(name without the LiteRt prefix, result, parameters)
#define EDGEVIT_LITERT_FUNCTIONS(X)                                                \
    X(CreateEnvironment, Status, (int, const EnvironmentOption*, Handle*))         \
    X(DestroyEnvironment, void, (Handle))                                          \
    X(CreateModelFromBuffer, Status, (Handle, const void*, std::size_t, Handle*))  \
    X(DestroyModel, void, (Handle))                                                \
    X(GetNumModelSignatures, Status, (Handle, std::size_t*))                       \
    X(GetModelSignature, Status, (Handle, std::size_t, Handle*))                   \
    X(GetSignatureSubgraph, Status, (Handle, Handle*))                             \
    X(GetNumSubgraphOps, Status, (Handle, std::size_t*))                           \
    X(GetNumSignatureInputs, Status, (Handle, std::size_t*))                       \
    X(GetNumSignatureOutputs, Status, (Handle, std::size_t*))                      \
    X(GetSignatureInputName, Status, (Handle, std::size_t, const char**))          \
    X(GetSignatureOutputName, Status, (Handle, std::size_t, const char**))         \
    X(GetSignatureInputTensorByIndex, Status, (Handle, std::size_t, Handle*))      \
    X(GetSignatureOutputTensorByIndex, Status, (Handle, std::size_t, Handle*))     \
    X(GetRankedTensorType, Status, (Handle, RankedTensorType*))                    \
    X(GetQuantizationTypeId, Status, (Handle, int*))                               \
    X(GetPerTensorQuantization, Status, (Handle, PerTensorQuantization*))          \
    X(CreateOptions, Status, (Handle*))                                            \
    X(DestroyOptions, void, (Handle))                                              \
    X(SetOptionsHardwareAccelerators, Status, (Handle, int))                       \
    X(CreateOpaqueOptions, Status, (const char*, void*, void (*)(void*), Handle*)) \
    X(DestroyOpaqueOptions, void, (Handle))                                        \
    X(AddOpaqueOptions, Status, (Handle, Handle))                                  \
    X(CreateCompiledModel, Status, (Handle, Handle, Handle, Handle*))              \
    X(DestroyCompiledModel, void, (Handle))                                        \
    X(CompiledModelIsFullyAccelerated, Status, (Handle, bool*))                    \
    X(CompiledModelGetProfiler, Status, (Handle, Handle*))                         \
    X(StartProfiler, Status, (Handle))                                             \
    X(StopProfiler, Status, (Handle))                                              \
    X(ResetProfiler, Status, (Handle))                                             \
    X(GetNumProfilerEvents, Status, (Handle, int*))                                \
    X(GetProfilerEvents, Status, (Handle, int, ProfiledEvent*))                    \
    X(GetCompiledModelInputBufferRequirements, Status,                             \
      (Handle, std::size_t, std::size_t, Handle*))                                 \
    X(GetCompiledModelOutputBufferRequirements, Status,                            \
      (Handle, std::size_t, std::size_t, Handle*))                                 \
    X(CreateManagedTensorBufferFromRequirements, Status,                           \
      (Handle, const RankedTensorType*, Handle, Handle*))                          \
    X(DestroyTensorBuffer, void, (Handle))                                         \
    X(GetTensorBufferPackedSize, Status, (Handle, std::size_t*))                   \
    X(LockTensorBuffer, Status, (Handle, void**, int))                             \
    X(UnlockTensorBuffer, Status, (Handle))                                        \
    X(RunCompiledModel, Status, (Handle, std::size_t, std::size_t, Handle*, std::size_t, Handle*))

struct Api {
#define EDGEVIT_LITERT_MEMBER(name, result, parameters) result(*name) parameters = nullptr;
    EDGEVIT_LITERT_FUNCTIONS(EDGEVIT_LITERT_MEMBER)
#undef EDGEVIT_LITERT_MEMBER
    // New in 2.3.0, and only diagnostic: null in an older library.
    Status (*CompiledModelIsNonCpuFullyAccelerated)(Handle, bool*) = nullptr;
};

}  // namespace edgevit::litert
