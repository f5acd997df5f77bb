// A stand-in, not NVIDIA's: the part of TensorRT's ONNX parser that targets/tensorrt uses.
#pragma once

#include "NvInfer.h"

namespace nvonnxparser {

class IParserError {
  public:
    virtual char const* desc() const = 0;
    virtual int node() const = 0;

  protected:
    virtual ~IParserError() = default;
};

class IParser {
  public:
    virtual ~IParser() noexcept = default;
    virtual bool parse(void const* serialized_onnx_model, std::size_t serialized_onnx_model_size,
                       const char* model_path = nullptr) noexcept = 0;
    virtual int getNbErrors() const noexcept = 0;
    virtual IParserError const* getError(int index) const noexcept = 0;
};

IParser* createParser(nvinfer1::INetworkDefinition& network, nvinfer1::ILogger& logger) noexcept;

}  // namespace nvonnxparser
