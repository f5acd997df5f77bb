// Pixels as an application has them: RGB, RGBA or BGRA, any stride.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/image.h"

namespace edgevit {

// The numbers are those of the C API; check_pixels() refuses others.
enum class PixelFormat : std::int32_t { rgb, rgba, bgra };

// A view of pixels that somebody else owns; `stride_bytes` from one row to the next.
struct Pixels {
    const std::uint8_t* data = nullptr;
    std::size_t width = 0;
    std::size_t height = 0;
    std::size_t stride_bytes = 0;
    PixelFormat format = PixelFormat::rgb;
};

// Of an RGB or RGBA picture.
inline Pixels pixels_of(const Image& image) {
    return {image.rgb.data(), static_cast<std::size_t>(image.width),
            static_cast<std::size_t>(image.height), image.stride_bytes(),
            image.channels == 4 ? PixelFormat::rgba : PixelFormat::rgb};
}

// Raises InputError for no or more than 64 million pixels, CallError for a null pointer, a format
// that is none, and a stride below a row's bytes or over 1 GiB.
void check_pixels(const Pixels& pixels);

// The same picture as RGB: a view of `pixels` where they are RGB, else of `scratch`, which is
// filled. Needs pixels that passed check_pixels().
ImageView as_rgb(const Pixels& pixels, Image& scratch);

// The same with alpha where the pixels have it, as RGBA.
ImageView as_rgba(const Pixels& pixels, Image& scratch);

}  // namespace edgevit
