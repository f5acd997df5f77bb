// Our own declarations of the part of ONNX Runtime's C ABI that the back-end calls. The wheel ships
// the library without headers. The ABI is one table of function pointers to which releases only
// append, so a slot's number never changes; a library is asked for the table of kApiVersion and
// answers null when it is older.
#pragma once

#include <cstddef>
#include <cstdint>

namespace edgevit::onnxruntime {

constexpr std::uint32_t kApiVersion = 16;  // ONNX Runtime 1.16

using Handle = void*;
using ConstHandle = const void*;
using Status = Handle;  // null: done; else owned by the caller

enum LoggingLevel : int { kLogErrors = 3 };
enum ExecutionMode : int { kSequential = 0 };
enum OptimizationLevel : int { kOptimizeAll = 99 };
enum AllocatorType : int { kDeviceAllocator = 0 };
enum MemoryType : int { kDefaultMemory = 0 };
enum ElementType : int { kFloat32 = 1, kUInt8 = 2, kInt8 = 3, kFloat16 = 10 };

struct ApiBase {
    const void* const* (*get_api)(std::uint32_t version);
    const char* (*version)();
};

// X(slot, name, result, parameters)
#define EDGEVIT_ORT_FUNCTIONS(X)                                                         \
    X(2, GetErrorMessage, const char*, (ConstHandle))                                    \
    X(3, CreateEnv, Status, (int, const char*, Handle*))                                 \
    X(7, CreateSession, Status, (ConstHandle, const char*, ConstHandle, Handle*))        \
    X(9, Run, Status,                                                                    \
      (Handle, ConstHandle, const char* const*, const ConstHandle*, std::size_t,         \
       const char* const*, std::size_t, Handle*))                                        \
    X(10, CreateSessionOptions, Status, (Handle*))                                       \
    X(13, SetSessionExecutionMode, Status, (Handle, int))                                \
    X(14, EnableProfiling, Status, (Handle, const char*))                                \
    X(23, SetSessionGraphOptimizationLevel, Status, (Handle, int))                       \
    X(24, SetIntraOpNumThreads, Status, (Handle, int))                                   \
    X(25, SetInterOpNumThreads, Status, (Handle, int))                                   \
    X(30, SessionGetInputCount, Status, (ConstHandle, std::size_t*))                     \
    X(31, SessionGetOutputCount, Status, (ConstHandle, std::size_t*))                    \
    X(33, SessionGetInputTypeInfo, Status, (ConstHandle, std::size_t, Handle*))          \
    X(34, SessionGetOutputTypeInfo, Status, (ConstHandle, std::size_t, Handle*))         \
    X(36, SessionGetInputName, Status, (ConstHandle, std::size_t, Handle, char**))       \
    X(37, SessionGetOutputName, Status, (ConstHandle, std::size_t, Handle, char**))      \
    X(49, CreateTensorWithDataAsOrtValue, Status,                                        \
      (ConstHandle, void*, std::size_t, const std::int64_t*, std::size_t, int, Handle*)) \
    X(55, CastTypeInfoToTensorInfo, Status, (ConstHandle, ConstHandle*))                 \
    X(60, GetTensorElementType, Status, (ConstHandle, int*))                             \
    X(61, GetDimensionsCount, Status, (ConstHandle, std::size_t*))                       \
    X(62, GetDimensions, Status, (ConstHandle, std::int64_t*, std::size_t))              \
    X(69, CreateCpuMemoryInfo, Status, (int, int, Handle*))                              \
    X(76, AllocatorFree, Status, (Handle, void*))                                        \
    X(78, GetAllocatorWithDefaultOptions, Status, (Handle*))                             \
    X(92, ReleaseEnv, void, (Handle))                                                    \
    X(93, ReleaseStatus, void, (Handle))                                                 \
    X(94, ReleaseMemoryInfo, void, (Handle))                                             \
    X(95, ReleaseSession, void, (Handle))                                                \
    X(96, ReleaseValue, void, (Handle))                                                  \
    X(98, ReleaseTypeInfo, void, (Handle))                                               \
    X(100, ReleaseSessionOptions, void, (Handle))                                        \
    X(110, SessionEndProfiling, Status, (Handle, Handle, char**))                        \
    X(130, AddSessionConfigEntry, Status, (Handle, const char*, const char*))

struct Api {
#define EDGEVIT_ORT_MEMBER(slot, name, result, parameters) result(*name) parameters = nullptr;
    EDGEVIT_ORT_FUNCTIONS(EDGEVIT_ORT_MEMBER)
#undef EDGEVIT_ORT_MEMBER
};

}  // namespace edgevit::onnxruntime
