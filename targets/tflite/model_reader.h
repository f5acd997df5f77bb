// A .tflite file as its tensors and operators, read with every bound checked.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "flatbuffer.h"

namespace edgevit::litert {

struct ModelTensor {
    std::string name;
    std::vector<std::int32_t> shape;
    int type = 0;                   // of the schema's TensorType
    std::size_t element_count = 1;  // the product of the sides
    std::size_t element_bytes = 0;
    std::vector<float> scale;              // empty where it is not quantized
    std::vector<std::int64_t> zero_point;  // as many
    std::int32_t axis = 0;                 // which the scales lie on
    FlatVector<std::uint8_t> data;         // of a constant; else empty
    bool is_constant() const { return data.size > 0; }
};

struct ModelOperator {
    int code = 0;             // of the schema's BuiltinOperator
    std::string custom_code;  // of one that the schema does not have; else empty
    int version = 1;
    std::vector<std::int32_t> inputs;  // -1: left out
    std::vector<std::int32_t> outputs;
    int options_type = 0;  // of the schema's BuiltinOptions
    std::optional<FlatTable> options;
    FlatVector<std::uint8_t> custom_options;  // empty but for an operator with a custom code
};

struct ModelGraph {
    std::vector<ModelTensor> tensors;
    std::vector<ModelOperator> operators;  // in running order
    std::vector<std::int32_t> inputs;
    std::vector<std::int32_t> outputs;
};

// Raises InputError for whatever does not lie in the file, refers to what is not there, or is of a
// kind that edgevit does not write.
ModelGraph read_model(const FlatFile& file);

}  // namespace edgevit::litert
