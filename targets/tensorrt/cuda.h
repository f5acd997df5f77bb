// CUDA behind RAII: checked calls, memory, a stream, an event.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "core/errors.h"

namespace edgevit::tensorrt {

// Raises Error "CUDA: WHAT: its message" unless the call succeeded.
inline void check_cuda(cudaError_t status, const char* what) {
    if (status != cudaSuccess) {
        throw Error(std::string("CUDA: ") + what + ": " + cudaGetErrorString(status));
    }
}

struct DeviceMemoryDeleter {
    void operator()(void* memory) const noexcept { cudaFree(memory); }
};
using DeviceMemory = std::unique_ptr<void, DeviceMemoryDeleter>;

inline DeviceMemory allocate_on_device(std::size_t size_bytes) {
    void* memory = nullptr;
    check_cuda(cudaMalloc(&memory, size_bytes), "allocating GPU memory");
    return DeviceMemory(memory);
}

struct HostMemoryDeleter {
    void operator()(std::uint8_t* memory) const noexcept { cudaFreeHost(memory); }
};
// Page-locked, so that copies to and from the GPU need no second copy.
using HostMemory = std::unique_ptr<std::uint8_t, HostMemoryDeleter>;

inline HostMemory allocate_on_host(std::size_t size_bytes) {
    void* memory = nullptr;
    check_cuda(cudaHostAlloc(&memory, size_bytes, cudaHostAllocDefault),
               "allocating page-locked memory");
    return HostMemory(static_cast<std::uint8_t*>(memory));
}

class Stream {
  public:
    Stream() { check_cuda(cudaStreamCreate(&stream_), "creating a stream"); }
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;
    ~Stream() { cudaStreamDestroy(stream_); }
    cudaStream_t get() const { return stream_; }

  private:
    cudaStream_t stream_ = nullptr;
};

class Event {
  public:
    Event() { check_cuda(cudaEventCreate(&event_), "creating an event"); }
    Event(const Event&) = delete;
    Event& operator=(const Event&) = delete;
    ~Event() { cudaEventDestroy(event_); }
    cudaEvent_t get() const { return event_; }

  private:
    cudaEvent_t event_ = nullptr;
};

}  // namespace edgevit::tensorrt
