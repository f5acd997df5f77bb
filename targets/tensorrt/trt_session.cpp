#include "trt_session.h"

#include <cstring>

#include "core/errors.h"

namespace edgevit::tensorrt {
namespace {

DType dtype_of(nvinfer1::DataType type, const std::string& name) {
    switch (type) {
        case nvinfer1::DataType::kFLOAT:
            return DType::float32;
        case nvinfer1::DataType::kHALF:
            return DType::float16;
        case nvinfer1::DataType::kINT8:
            return DType::int8;
        case nvinfer1::DataType::kUINT8:
            return DType::uint8;
        default:
            throw InputError("the plan's tensor " + name + " has TensorRT's data type " +
                             std::to_string(static_cast<int>(type)) +
                             "; int8, uint8, float16 and float32 are known");
    }
}

TensorSpec describe(const nvinfer1::ICudaEngine& engine, const char* name) {
    TensorSpec spec;
    spec.name = name;
    spec.dtype = dtype_of(engine.getTensorDataType(name), spec.name);
    const nvinfer1::Dims shape = engine.getTensorShape(name);
    for (int i = 0; i < shape.nbDims; ++i) {
        spec.shape.push_back(shape.d[i]);
    }
    if (engine.getTensorFormat(name) != nvinfer1::TensorFormat::kLINEAR) {
        throw InputError("the plan's tensor " + spec.name + " is not laid out row by row");
    }
    return spec;
}

void check_size(std::size_t actual, std::size_t expected, const char* what) {
    if (actual != expected) {
        throw Error(std::string("TensorRT: ") + what + " of " + std::to_string(actual) +
                    " bytes, expected " + std::to_string(expected));
    }
}

}  // namespace

void LayerTimer::reportLayerTime(char const* layer, float milliseconds) noexcept {
    total_us[layer] += 1000.0 * static_cast<double>(milliseconds);
}

Session::Session(Logger& logger, ByteView plan)
    : logger_(logger), runtime_(nvinfer1::createInferRuntime(logger)) {
    if (runtime_ == nullptr) {
        throw Error("TensorRT: cannot make a runtime: " + logger_.take_errors());
    }
    engine_.reset(runtime_->deserializeCudaEngine(plan.data, plan.size));
    if (engine_ == nullptr) {
        throw Error("TensorRT: cannot load the plan: " + logger_.take_errors());
    }
    context_.reset(engine_->createExecutionContext());
    if (context_ == nullptr) {
        throw Error("TensorRT: cannot make an execution context: " + logger_.take_errors());
    }
    // A plan of detailed verbosity marks each layer for NVIDIA's profilers, which slows each run.
    if (!context_->setNvtxVerbosity(nvinfer1::ProfilingVerbosity::kNONE)) {
        throw Error("TensorRT: cannot leave out the profiler's marks: " + logger_.take_errors());
    }
    for (int i = 0; i < engine_->getNbIOTensors(); ++i) {
        const char* name = engine_->getIOTensorName(i);
        const bool is_input = engine_->getTensorIOMode(name) == nvinfer1::TensorIOMode::kINPUT;
        (is_input ? inputs_ : outputs_).push_back(describe(*engine_, name));
    }
}

void Session::allocate() {
    input_ = bind(inputs_.front());
    for (const TensorSpec& output : outputs_) {
        output_buffers_.push_back(bind(output));
    }
}

Session::Buffer Session::bind(const TensorSpec& spec) {
    Buffer buffer;
    buffer.size_bytes = spec.size_bytes();
    buffer.host = allocate_on_host(buffer.size_bytes);
    buffer.device = allocate_on_device(buffer.size_bytes);
    if (!context_->setTensorAddress(spec.name.c_str(), buffer.device.get())) {
        throw Error("TensorRT: cannot bind " + spec.name + ": " + logger_.take_errors());
    }
    return buffer;
}

void Session::set_input(ByteView bytes) {
    check_size(bytes.size, input_.size_bytes, "an input");
    std::memcpy(input_.host.get(), bytes.data, bytes.size);
}

void Session::invoke() {
    check_cuda(cudaMemcpyAsync(input_.device.get(), input_.host.get(), input_.size_bytes,
                               cudaMemcpyHostToDevice, stream_.get()),
               "copying the input");
    check_cuda(cudaEventRecord(started_.get(), stream_.get()), "recording an event");
    if (!context_->enqueueV3(stream_.get())) {
        throw Error("TensorRT: cannot run the plan: " + logger_.take_errors());
    }
    check_cuda(cudaEventRecord(stopped_.get(), stream_.get()), "recording an event");
    for (const Buffer& output : output_buffers_) {
        check_cuda(cudaMemcpyAsync(output.host.get(), output.device.get(), output.size_bytes,
                                   cudaMemcpyDeviceToHost, stream_.get()),
                   "copying an output");
    }
    check_cuda(cudaStreamSynchronize(stream_.get()), "running the plan");
    float milliseconds = 0;
    check_cuda(cudaEventElapsedTime(&milliseconds, started_.get(), stopped_.get()),
               "reading the time");
    last_device_us_ = 1000.0 * static_cast<double>(milliseconds);
}

void Session::get_output(std::size_t index, std::uint8_t* out, std::size_t size_bytes) const {
    const Buffer& output = output_buffers_.at(index);
    check_size(size_bytes, output.size_bytes, "an output");
    std::memcpy(out, output.host.get(), size_bytes);
}

void Session::time_layers(LayerTimer& timer) { context_->setProfiler(&timer); }

std::string Session::describe_layers() const {
    const std::unique_ptr<nvinfer1::IEngineInspector> inspector(engine_->createEngineInspector());
    const char* text =
        inspector == nullptr
            ? nullptr
            : inspector->getEngineInformation(nvinfer1::LayerInformationFormat::kJSON);
    if (text == nullptr) {
        throw Error("TensorRT: cannot describe the engine: " + logger_.take_errors());
    }
    return text;
}

}  // namespace edgevit::tensorrt
