#include "trt_logger.h"

#include <cstdio>
#include <exception>
#include <utility>

namespace edgevit::tensorrt {
namespace {

constexpr std::size_t kMaxErrorBytes = 16 << 10;

}  // namespace

void Logger::log(Severity severity, nvinfer1::AsciiChar const* message) noexcept {
    if (severity == Severity::kWARNING) {
        std::fprintf(stderr, "TensorRT: %s\n", message);
        return;
    }
    if (severity != Severity::kERROR && severity != Severity::kINTERNAL_ERROR) {
        return;
    }
    try {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (errors_.size() < kMaxErrorBytes) {
            errors_ += (errors_.empty() ? "" : "; ") + std::string(message);
        }
    } catch (const std::exception&) { std::fprintf(stderr, "TensorRT: %s\n", message); }
}

std::string Logger::take_errors() {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::string errors = std::exchange(errors_, {});
    return errors.empty() ? "no reason given" : errors;
}

}  // namespace edgevit::tensorrt
