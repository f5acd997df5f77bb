// A plan, opened on the GPU: one input tensor in, output tensors out.
#pragma once

#include <NvInfer.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/bytes.h"
#include "core/tensor.h"
#include "cuda.h"
#include "trt_logger.h"

namespace edgevit::tensorrt {

// Adds up what TensorRT's profiler reports: layer name -> microseconds.
class LayerTimer : public nvinfer1::IProfiler {
  public:
    void reportLayerTime(char const* layer, float milliseconds) noexcept override;

    std::map<std::string, double> total_us;
};

class Session {
  public:
    // Raises Error when TensorRT refuses the plan, InputError when one of its tensors is of a type
    // or layout that the harness has no word for.
    Session(Logger& logger, ByteView plan);

    const std::vector<TensorSpec>& inputs() const { return inputs_; }
    const std::vector<TensorSpec>& outputs() const { return outputs_; }

    // Makes the buffers; needs one input.
    void allocate();

    void set_input(ByteView bytes);
    // Copies the input to the GPU, runs, copies the outputs back, waits.
    void invoke();
    void get_output(std::size_t index, std::uint8_t* out, std::size_t size_bytes) const;

    // How long the last invoke() ran on the GPU, without the copies.
    double last_device_us() const { return last_device_us_; }

    // From now on invoke() is slower and reports each layer to `timer`, which must outlive this.
    void time_layers(LayerTimer& timer);

    // The engine inspector's JSON.
    std::string describe_layers() const;

  private:
    // Memory of one tensor on both sides.
    struct Buffer {
        std::size_t size_bytes = 0;
        HostMemory host;
        DeviceMemory device;
    };
    Buffer bind(const TensorSpec& spec);

    Logger& logger_;
    // Each is made of the one before it, so they are destroyed from the last to the first.
    std::unique_ptr<nvinfer1::IRuntime> runtime_;
    std::unique_ptr<nvinfer1::ICudaEngine> engine_;
    std::unique_ptr<nvinfer1::IExecutionContext> context_;
    std::vector<TensorSpec> inputs_;
    std::vector<TensorSpec> outputs_;
    Stream stream_;
    Event started_;
    Event stopped_;
    Buffer input_;
    std::vector<Buffer> output_buffers_;
    double last_device_us_ = 0;
};

}  // namespace edgevit::tensorrt
