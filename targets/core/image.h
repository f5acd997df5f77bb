// Pixels in memory: 8 bits a channel, rows top to bottom.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/bytes.h"

namespace edgevit {

// A view of pixels that somebody else owns; `stride_bytes` from one row to the next. RGB, but where
// a step of the pre-processing has other channels.
struct ImageView {
    const std::uint8_t* rgb = nullptr;
    int width = 0;
    int height = 0;
    std::size_t stride_bytes = 0;
    int channels = 3;

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
    return {in.row(box.top) + static_cast<std::size_t>(box.left * in.channels), box.width,
            box.height, in.stride_bytes, in.channels};
}

struct Image {
    int width = 0;
    int height = 0;
    int channels = 3;
    Bytes rgb;  // width * height * channels

    // Sets the size and makes room; keeps the memory of an earlier, larger picture.
    void reset(int new_width, int new_height, int new_channels = 3) {
        width = new_width;
        height = new_height;
        channels = new_channels;
        rgb.resize(stride_bytes() * static_cast<std::size_t>(height));
    }
    std::size_t stride_bytes() const {
        return static_cast<std::size_t>(width) * static_cast<std::size_t>(channels);
    }
    std::uint8_t* row(int y) { return rgb.data() + static_cast<std::size_t>(y) * stride_bytes(); }
    ImageView view() const { return {rgb.data(), width, height, stride_bytes(), channels}; }
};

}  // namespace edgevit
