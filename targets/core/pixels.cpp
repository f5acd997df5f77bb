#include "core/pixels.h"

#include <limits>
#include <string>

#include "core/errors.h"
#include "core/limits.h"

namespace edgevit {
namespace {

std::size_t pixel_bytes(PixelFormat format) { return format == PixelFormat::rgb ? 3 : 4; }

}  // namespace

void check_pixels(const Pixels& pixels) {
    if (pixels.data == nullptr) {
        throw CallError("the image's pixels are null");
    }
    if (pixels.format != PixelFormat::rgb && pixels.format != PixelFormat::rgba &&
        pixels.format != PixelFormat::bgra) {
        throw CallError("the image's format is " + std::to_string(static_cast<int>(pixels.format)) +
                        "; known are EDGEVIT_RGB888, EDGEVIT_RGBA8888, EDGEVIT_BGRA8888");
    }
    if (pixels.width == 0 || pixels.height == 0 || pixels.height > kMaxImagePixels / pixels.width) {
        throw InputError("the image has " + std::to_string(pixels.width) + "x" +
                         std::to_string(pixels.height) + " pixels; 1 to 64 million can be used");
    }
    const std::size_t row_bytes = pixels.width * pixel_bytes(pixels.format);
    if (pixels.stride_bytes < row_bytes) {
        throw CallError("the image's stride is " + std::to_string(pixels.stride_bytes) +
                        " bytes, a row of its " + std::to_string(pixels.width) + " pixels has " +
                        std::to_string(row_bytes));
    }
    // The second limit is the tighter one where addresses have 32 bits.
    if (pixels.stride_bytes > kMaxStrideBytes ||
        pixels.stride_bytes > std::numeric_limits<std::size_t>::max() / pixels.height) {
        throw CallError("the image's stride is " + std::to_string(pixels.stride_bytes) +
                        " bytes; up to 1 GiB, and an image that fits the memory, can be used");
    }
}

ImageView as_rgb(const Pixels& pixels, Image& scratch) {
    const int width = static_cast<int>(pixels.width);
    const int height = static_cast<int>(pixels.height);
    if (pixels.format == PixelFormat::rgb) {
        return {pixels.data, width, height, pixels.stride_bytes};
    }
    scratch.reset(width, height);
    const std::size_t red = pixels.format == PixelFormat::rgba ? 0 : 2;
    for (int y = 0; y < height; ++y) {
        const std::uint8_t* source =
            pixels.data + static_cast<std::size_t>(y) * pixels.stride_bytes;
        std::uint8_t* target = scratch.row(y);
        for (int x = 0; x < width; ++x, source += 4, target += 3) {
            target[0] = source[red], target[1] = source[1], target[2] = source[2 - red];
        }
    }
    return scratch.view();
}

ImageView as_rgba(const Pixels& pixels, Image& scratch) {
    if (pixels.format == PixelFormat::rgb) {
        return as_rgb(pixels, scratch);
    }
    const int width = static_cast<int>(pixels.width);
    const int height = static_cast<int>(pixels.height);
    if (pixels.format == PixelFormat::rgba) {
        return {pixels.data, width, height, pixels.stride_bytes, 4};
    }
    scratch.reset(width, height, 4);
    for (int y = 0; y < height; ++y) {
        const std::uint8_t* source =
            pixels.data + static_cast<std::size_t>(y) * pixels.stride_bytes;
        std::uint8_t* target = scratch.row(y);
        for (int x = 0; x < width; ++x, source += 4, target += 4) {
            target[0] = source[2], target[1] = source[1], target[2] = source[0];
            target[3] = source[3];
        }
    }
    return scratch.view();
}

}  // namespace edgevit
