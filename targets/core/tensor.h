// What a tensor at the border of an artifact looks like.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace edgevit {

enum class DType { int8, uint8, float16, float32 };

constexpr bool is_float(DType dtype) { return dtype == DType::float16 || dtype == DType::float32; }

std::string_view dtype_name(DType dtype);
std::optional<DType> dtype_from_name(std::string_view name);
std::size_t element_size_bytes(DType dtype);

// real value = (stored - zero_point) * scale; scale is absent for floats, and for the pixels of an
// image (uint8) that the artifact itself makes numbers of.
struct TensorSpec {
    std::string name;
    std::vector<std::int64_t> shape;
    DType dtype = DType::float32;
    std::optional<float> scale;
    int zero_point = 0;

    std::size_t elements() const;
    std::size_t size_bytes() const { return elements() * element_size_bytes(dtype); }

    // For messages: "int8 [1, 64, 64, 3] scale 0.0078125 zero-point 0".
    std::string describe() const;
};

// True when dtype, shape, scale and zero-point agree; names may differ between runtimes.
bool same_layout(const TensorSpec& a, const TensorSpec& b);

// Real values of a stored tensor: (stored - zero_point) * scale, or the floats as they are,
// halves widened.
// `out` has spec.elements() floats.
void dequantize(const TensorSpec& spec, const std::uint8_t* stored, float* out);

}  // namespace edgevit
