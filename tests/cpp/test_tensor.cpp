#include "core/tensor.h"

#include <doctest/doctest.h>

#include <cstring>

using namespace edgevit;

TEST_CASE("stored values become real ones") {
    const std::uint8_t stored[] = {0x00, 0x7f, 0x80, 0xff};
    float out[4];
    dequantize({"x", {1, 4}, DType::int8, 0.5F, -1}, stored, out);
    CHECK(std::vector<float>(out, out + 4) == std::vector<float>{0.5F, 64.0F, -63.5F, 0.0F});
    dequantize({"x", {1, 4}, DType::uint8, 0.5F, 128}, stored, out);
    CHECK(std::vector<float>(out, out + 4) == std::vector<float>{-64.0F, -0.5F, 0.0F, 63.5F});
    const float real = 1.25F;
    std::uint8_t bytes[4];
    std::memcpy(bytes, &real, 4);
    dequantize({"x", {1, 1}, DType::float32, {}, 0}, bytes, out);
    CHECK(out[0] == real);
    const std::uint16_t halves[] = {0x3c00, 0xc100, 0x0001};
    std::uint8_t six_bytes[6];
    std::memcpy(six_bytes, halves, 6);
    dequantize({"x", {1, 3}, DType::float16, {}, 0}, six_bytes, out);
    CHECK(std::vector<float>(out, out + 3) == std::vector<float>{1.0F, -2.5F, 0x1p-24F});
    CHECK(TensorSpec{"x", {1, 3}, DType::float16, {}, 0}.size_bytes() == 6);
    CHECK(dtype_from_name("float16") == DType::float16);
}

TEST_CASE("two tensors agree by type, shape, scale and zero-point, not by name") {
    const TensorSpec spec = {"a", {1, 2}, DType::int8, 0.5F, 3};
    CHECK(same_layout(spec, {"b", {1, 2}, DType::int8, 0.5F, 3}));
    CHECK_FALSE(same_layout(spec, {"a", {2, 1}, DType::int8, 0.5F, 3}));
    CHECK_FALSE(same_layout(spec, {"a", {1, 2}, DType::uint8, 0.5F, 3}));
    CHECK_FALSE(same_layout(spec, {"a", {1, 2}, DType::int8, 0.25F, 3}));
    CHECK_FALSE(same_layout(spec, {"a", {1, 2}, DType::int8, 0.5F, 4}));
    CHECK_FALSE(same_layout(spec, {"a", {1, 2}, DType::int8, {}, 3}));
    CHECK(spec.describe() == "int8 [1, 2] scale 0.5 zero-point 3");
}
