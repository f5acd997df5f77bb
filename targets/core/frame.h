// A picture as a camera gives it: RGB or YUV planes, a part of them, turned and mirrored.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "core/image.h"
#include "core/pixels.h"

namespace edgevit {

// The numbers are those of the C API; check_frame() refuses others. The first three are
// PixelFormat's.
enum class FrameFormat : std::int32_t { rgb, rgba, bgra, nv12, nv21, i420, yuv420 };

// What the numbers of YUV mean: the standard's matrix, and whether luma runs from 16 to 235 or
// from 0 to 255.
enum class YuvColour : std::int32_t { bt601_limited, bt601_full, bt709_limited, bt709_full };

// One plane that somebody else owns. `pixel_stride_bytes` from one value to the next in a row.
struct Plane {
    const std::uint8_t* data = nullptr;
    std::size_t stride_bytes = 0;
    std::size_t pixel_stride_bytes = 0;
};

// rgb, rgba, bgra: planes[0]. nv12 and nv21: planes[0] is Y, planes[1] both chroma values of a
// pixel pair, U first in nv12. i420 and yuv420: Y, U, V; yuv420 with pixel strides of its own, as
// Android's YUV_420_888. Chroma planes have half of the sides, rounded up.
struct Frame {
    std::array<Plane, 3> planes = {};
    std::size_t width = 0;  // pixels of the whole frame, as it lies in memory
    std::size_t height = 0;
    FrameFormat format = FrameFormat::rgb;
    YuvColour colour = YuvColour::bt601_limited;
    // The part to look at, as the frame lies in memory; no width and height: all of it.
    std::size_t crop_left = 0;
    std::size_t crop_top = 0;
    std::size_t crop_width = 0;
    std::size_t crop_height = 0;
    std::int32_t rotation_degrees = 0;  // 0, 90, 180 or 270, clockwise: what makes it upright
    bool is_mirrored = false;           // left and right swapped, once it is upright
};

// Raises InputError for no or more than 64 million pixels, CallError for a null pointer, a format,
// colour or rotation that is none, a stride that is too small or over 1 GiB, and a crop that does
// not lie in the frame.
void check_frame(const Frame& frame);

// The part of the frame as upright RGB: a view of the frame's own memory where it is RGB and
// neither turned nor mirrored, else of `scratch`, which is filled. Needs a frame that passed
// check_frame().
//
// Each pixel takes the luma of its place and the chroma of its pixel pair, unfiltered:
//     R = clip((ky * (Y - y0)                       + kr * (V - 128) + 32768) >> 16)
//     G = clip((ky * (Y - y0) - kg * (U - 128) - kh * (V - 128) + 32768) >> 16)
//     B = clip((ky * (Y - y0) + kb * (U - 128)                       + 32768) >> 16)
// in 32-bit integers, >> rounding down and clip to 0 to 255, with
//                      y0     ky      kr     kg     kh      kb
//     bt601_limited    16  76309  104597  25675  53279  132201
//     bt601_full        0  65536   91881  22553  46802  116130
//     bt709_limited    16  76309  117489  13975  34925  138438
//     bt709_full        0  65536  103206  12276  30679  121609
ImageView upright_rgb(const Frame& frame, Image& scratch);

}  // namespace edgevit
