// Between the harness's packed tensors and the memory that Core ML hands out: rows with a pitch,
// arrays with strides. Plain C++, so that it is tested where there is no Core ML.
//
// The copies allocate nothing and throw nothing: they run inside blocks of Objective-C, which no
// exception may leave.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "core/bytes.h"
#include "core/limits.h"
#include "core/preprocessing.h"

namespace edgevit::coreml {

enum class Element { float16, float32, float64 };

// Shape and strides of an array, both in elements, outermost axis first.
struct Extents {
    std::size_t rank = 0;
    std::array<std::int64_t, kMaxTensorRank> shape = {};
    std::array<std::int64_t, kMaxTensorRank> strides = {};

    std::size_t elements() const noexcept;

    // From the first element to behind the last; 0 when a side is not positive, a stride is
    // negative, or the sum is beyond any memory.
    std::size_t span_elements() const noexcept;
};

// Pixels as the manifest's channels say, packed, to rows that start every `bytes_per_row`: BGRA
// with an opaque alpha, or grey. False, and nothing copied, when a row does not fit its pitch,
// `pixels` has another size, or the channels are those of no image.
bool pack_rows(ByteView pixels, Channels channels, std::size_t width, std::size_t height,
               std::size_t bytes_per_row, std::uint8_t* rows) noexcept;

// Packed floats in row-major order into a strided float32 array of `size_bytes`, and back from one
// of any element type. `packed` has elements() floats. False, and nothing copied, when the array
// reaches beyond its size.
bool scatter(const float* packed, const Extents& to, void* array, std::size_t size_bytes) noexcept;
bool gather(const void* array, std::size_t size_bytes, Element element, const Extents& from,
            float* packed) noexcept;

}  // namespace edgevit::coreml
