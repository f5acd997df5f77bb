// Pixels in memory: 8-bit RGB, rows top to bottom.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/bytes.h"

namespace edgevit {

// A view of RGB pixels that somebody else owns; `stride_bytes` from one row to the next.
struct ImageView {
    const std::uint8_t* rgb = nullptr;
    int width = 0;
    int height = 0;
    std::size_t stride_bytes = 0;

    const std::uint8_t* row(int y) const {
        return rgb + static_cast<std::size_t>(y) * stride_bytes;
    }
};

struct Size {
    int width = 0;
    int height = 0;
};

// A part of a picture, in its pixels.
struct Box {
    int left = 0;
    int top = 0;
    int width = 0;
    int height = 0;
};

// The same pixels, looked at through `box`, which must lie in the picture.
inline ImageView part_of(const ImageView& in, const Box& box) {
    return {in.row(box.top) + static_cast<std::size_t>(box.left) * 3, box.width, box.height,
            in.stride_bytes};
}

struct Image {
    int width = 0;
    int height = 0;
    Bytes rgb;  // width * height * 3

    // Sets the size and makes room; keeps the memory of an earlier, larger picture.
    void reset(int new_width, int new_height) {
        width = new_width;
        height = new_height;
        rgb.resize(static_cast<std::size_t>(width) * static_cast<std::size_t>(height) * 3);
    }
    std::size_t stride_bytes() const { return static_cast<std::size_t>(width) * 3; }
    std::uint8_t* row(int y) { return rgb.data() + static_cast<std::size_t>(y) * stride_bytes(); }
    ImageView view() const { return {rgb.data(), width, height, stride_bytes()}; }
};

}  // namespace edgevit
