#include "core/tensor.h"

#include <cstring>
#include <sstream>

#include "core/half.h"

namespace edgevit {

std::string_view dtype_name(DType dtype) {
    switch (dtype) {
        case DType::int8:
            return "int8";
        case DType::uint8:
            return "uint8";
        case DType::float16:
            return "float16";
        case DType::float32:
            return "float32";
    }
    return "unknown";
}

std::optional<DType> dtype_from_name(std::string_view name) {
    for (const DType dtype : {DType::int8, DType::uint8, DType::float16, DType::float32}) {
        if (dtype_name(dtype) == name) {
            return dtype;
        }
    }
    return std::nullopt;
}

std::size_t element_size_bytes(DType dtype) {
    return dtype == DType::float32 ? 4 : dtype == DType::float16 ? 2 : 1;
}

std::size_t TensorSpec::elements() const {
    std::size_t count = 1;
    for (const std::int64_t side : shape) {
        count *= static_cast<std::size_t>(side);
    }
    return count;
}

std::string TensorSpec::describe() const {
    std::ostringstream text;
    text << dtype_name(dtype) << " [";
    for (std::size_t i = 0; i < shape.size(); ++i) {
        text << (i == 0 ? "" : ", ") << shape[i];
    }
    text << "]";
    if (scale) {
        text.precision(9);  // enough digits to tell any two floats apart
        text << " scale " << *scale << " zero-point " << zero_point;
    }
    return text.str();
}

bool same_layout(const TensorSpec& a, const TensorSpec& b) {
    return a.dtype == b.dtype && a.shape == b.shape && a.scale == b.scale &&
           (!a.scale || a.zero_point == b.zero_point);
}

void dequantize(const TensorSpec& spec, const std::uint8_t* stored, float* out) {
    const std::size_t count = spec.elements();
    if (spec.dtype == DType::float32) {
        std::memcpy(out, stored, count * sizeof(float));
        return;
    }
    if (spec.dtype == DType::float16) {
        for (std::size_t i = 0; i < count; ++i) {
            std::uint16_t half = 0;
            std::memcpy(&half, stored + 2 * i, sizeof half);
            out[i] = half_to_float(half);
        }
        return;
    }
    const float scale = spec.scale.value_or(1.0F);
    for (std::size_t i = 0; i < count; ++i) {
        const int value =
            spec.dtype == DType::int8 ? static_cast<std::int8_t>(stored[i]) : stored[i];
        out[i] = static_cast<float>(value - spec.zero_point) * scale;
    }
}

}  // namespace edgevit
