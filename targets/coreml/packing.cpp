#include "packing.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "core/half.h"

namespace edgevit::coreml {
namespace {

std::size_t size_bytes_of(Element element) {
    switch (element) {
        case Element::float16:
            return 2;
        case Element::float32:
            return 4;
        case Element::float64:
            return 8;
    }
    return 0;
}

float load(const std::uint8_t* from, Element element) {
    if (element == Element::float16) {
        std::uint16_t half = 0;
        std::memcpy(&half, from, sizeof half);
        return half_to_float(half);
    }
    if (element == Element::float32) {
        float value = 0;
        std::memcpy(&value, from, sizeof value);
        return value;
    }
    double value = 0;
    std::memcpy(&value, from, sizeof value);
    return static_cast<float>(value);
}

// Calls step(i, offset) for element i in row-major order, at `offset` elements from the first.
template <typename Step>
void walk(const Extents& extents, Step step) {
    const std::size_t last = extents.rank - 1;
    const auto row_elements = static_cast<std::size_t>(extents.shape[last]);
    const auto row_stride = static_cast<std::size_t>(extents.strides[last]);
    const std::size_t rows = extents.elements() / row_elements;
    for (std::size_t row = 0; row < rows; ++row) {
        std::size_t offset = 0;
        for (std::size_t axis = last, rest = row; axis-- > 0;) {
            const auto side = static_cast<std::size_t>(extents.shape[axis]);
            offset += rest % side * static_cast<std::size_t>(extents.strides[axis]);
            rest /= side;
        }
        for (std::size_t i = 0; i < row_elements; ++i) {
            step(row * row_elements + i, offset + i * row_stride);
        }
    }
}

bool fits(const Extents& extents, std::size_t size_bytes, Element element) {
    const std::size_t span = extents.span_elements();
    return span > 0 && span <= size_bytes / size_bytes_of(element);
}

}  // namespace

std::size_t Extents::elements() const noexcept {
    std::size_t count = 1;
    for (std::size_t axis = 0; axis < rank; ++axis) {
        count *= static_cast<std::size_t>(shape[axis]);
    }
    return count;
}

std::size_t Extents::span_elements() const noexcept {
    constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max() / 8;
    if (rank == 0 || rank > kMaxTensorRank) {
        return 0;
    }
    std::int64_t last = 0;
    for (std::size_t axis = 0; axis < rank; ++axis) {
        if (shape[axis] < 1 || strides[axis] < 0) {
            return 0;
        }
        const std::int64_t steps = shape[axis] - 1;
        if (steps > 0 && strides[axis] > (most - last) / steps) {
            return 0;
        }
        last += steps * strides[axis];
    }
    return static_cast<std::size_t>(last) + 1;
}

bool pack_rows(ByteView pixels, Channels channels, std::size_t width, std::size_t height,
               std::size_t bytes_per_row, std::uint8_t* rows) noexcept {
    const bool is_grey = channels == Channels::grey;
    const auto count = static_cast<std::size_t>(channel_count(channels));
    if (channels == Channels::rgba || pixels.size != width * height * count ||
        bytes_per_row < width * (is_grey ? 1 : 4)) {
        return false;
    }
    const std::size_t red = channels == Channels::rgb ? 0 : 2;
    const std::uint8_t* pixel = pixels.data;
    for (std::size_t y = 0; y < height; ++y) {
        std::uint8_t* out = rows + y * bytes_per_row;
        if (is_grey) {
            std::copy_n(pixel, width, out);
            pixel += width;
            continue;
        }
        for (std::size_t x = 0; x < width; ++x, pixel += 3, out += 4) {
            out[0] = pixel[2 - red];
            out[1] = pixel[1];
            out[2] = pixel[red];
            out[3] = 255;
        }
    }
    return true;
}

bool scatter(const float* packed, const Extents& to, void* array, std::size_t size_bytes) noexcept {
    if (!fits(to, size_bytes, Element::float32)) {
        return false;
    }
    auto* out = static_cast<float*>(array);
    walk(to, [=](std::size_t i, std::size_t offset) { out[offset] = packed[i]; });
    return true;
}

bool gather(const void* array, std::size_t size_bytes, Element element, const Extents& from,
            float* packed) noexcept {
    if (!fits(from, size_bytes, element)) {
        return false;
    }
    const auto* bytes = static_cast<const std::uint8_t*>(array);
    const std::size_t element_bytes = size_bytes_of(element);
    walk(from, [=](std::size_t i, std::size_t offset) {
        packed[i] = load(bytes + offset * element_bytes, element);
    });
    return true;
}

}  // namespace edgevit::coreml
