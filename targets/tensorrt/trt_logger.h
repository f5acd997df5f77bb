// Collects what TensorRT logs, so that an error's reason stands in the exception's message.
#pragma once

#include <NvInfer.h>

#include <mutex>
#include <string>

namespace edgevit::tensorrt {

// Must outlive every object of TensorRT's that was made with it. TensorRT calls it from any thread.
class Logger : public nvinfer1::ILogger {
  public:
    // Errors are kept for take_errors(), warnings go to stderr, the rest nowhere.
    void log(Severity severity, nvinfer1::AsciiChar const* message) noexcept override;

    // The errors since the last call, "; " between them, or "no reason given".
    std::string take_errors();

  private:
    std::mutex mutex_;
    std::string errors_;
};

}  // namespace edgevit::tensorrt
