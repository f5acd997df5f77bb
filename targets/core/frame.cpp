#include "core/frame.h"

#include <algorithm>
#include <string>

#include "core/errors.h"
#include "core/limits.h"

namespace edgevit {
namespace {

struct Coefficients {
    int y0, ky, kr, kg, kh, kb;
};

constexpr Coefficients kCoefficients[] = {{16, 76309, 104597, 25675, 53279, 132201},
                                          {0, 65536, 91881, 22553, 46802, 116130},
                                          {16, 76309, 117489, 13975, 34925, 138438},
                                          {0, 65536, 103206, 12276, 30679, 121609}};

bool is_yuv(FrameFormat format) { return format >= FrameFormat::nv12; }
bool is_interleaved(FrameFormat format) {
    return format == FrameFormat::nv12 || format == FrameFormat::nv21;
}

std::size_t half(std::size_t side) { return side / 2 + side % 2; }

std::size_t rgb_pixel_bytes(FrameFormat format) { return format == FrameFormat::rgb ? 3 : 4; }

std::uint8_t clipped(int value) {
    return static_cast<std::uint8_t>(std::clamp(value >> 16, 0, 255));
}

void check_plane(const Plane& plane, const char* name, std::size_t width, std::size_t height,
                 std::size_t value_bytes) {
    // Called only to complain: a frame that is sound allocates nothing.
    const auto which = [name] { return std::string("the image's plane ") + name; };
    if (plane.data == nullptr) {
        throw CallError(which() + " is null");
    }
    if (plane.pixel_stride_bytes < value_bytes || plane.pixel_stride_bytes > 16) {
        throw CallError(which() + " has a pixel stride of " +
                        std::to_string(plane.pixel_stride_bytes) + " bytes; " +
                        std::to_string(value_bytes) + " to 16 can be used");
    }
    const std::size_t row_bytes = (width - 1) * plane.pixel_stride_bytes + value_bytes;
    if (plane.stride_bytes > kMaxStrideBytes || (height > 1 && plane.stride_bytes < row_bytes)) {
        throw CallError(which() + " has a stride of " + std::to_string(plane.stride_bytes) +
                        " bytes; a row of it has " + std::to_string(row_bytes) +
                        ", and up to 1 GiB can be used");
    }
}

void check_planes(const Frame& frame) {
    if (!is_yuv(frame.format)) {
        check_pixels({frame.planes[0].data, frame.width, frame.height, frame.planes[0].stride_bytes,
                      static_cast<PixelFormat>(frame.format)});
        return;
    }
    if (frame.width == 0 || frame.height == 0 || frame.height > kMaxImagePixels / frame.width) {
        throw InputError("the image has " + std::to_string(frame.width) + "x" +
                         std::to_string(frame.height) + " pixels; 1 to 64 million can be used");
    }
    check_plane(frame.planes[0], "Y", frame.width, frame.height, 1);
    const std::size_t width = half(frame.width), height = half(frame.height);
    if (is_interleaved(frame.format)) {
        check_plane(frame.planes[1], "UV", width, height, 2);
    } else {
        check_plane(frame.planes[1], "U", width, height, 1);
        check_plane(frame.planes[2], "V", width, height, 1);
    }
}

struct Part {
    std::size_t left, top, width, height;
};

Part part_of_frame(const Frame& frame) {
    if (frame.crop_width == 0 && frame.crop_height == 0) {
        return {0, 0, frame.width, frame.height};
    }
    return {frame.crop_left, frame.crop_top, frame.crop_width, frame.crop_height};
}

// One pixel of the frame as RGB, by its place in memory.
class RgbReader {
  public:
    explicit RgbReader(const Frame& frame)
        : red_(frame.format == FrameFormat::bgra ? 2 : 0), bytes_(rgb_pixel_bytes(frame.format)),
          plane_(frame.planes[0]) {}

    void read(std::size_t x, std::size_t y, std::uint8_t* rgb) const {
        const std::uint8_t* pixel = plane_.data + y * plane_.stride_bytes + x * bytes_;
        rgb[0] = pixel[red_], rgb[1] = pixel[1], rgb[2] = pixel[2 - red_];
    }

  private:
    std::size_t red_;
    std::size_t bytes_;
    Plane plane_;
};

class YuvReader {
  public:
    explicit YuvReader(const Frame& frame)
        : k_(kCoefficients[static_cast<int>(frame.colour)]), y_(frame.planes[0]),
          u_(frame.planes[1]), v_(frame.planes[is_interleaved(frame.format) ? 1 : 2]) {
        if (frame.format == FrameFormat::nv12) {
            ++v_.data;
        } else if (frame.format == FrameFormat::nv21) {
            ++u_.data;
        }
    }

    void read(std::size_t x, std::size_t y, std::uint8_t* rgb) const {
        const int luma = k_.ky * (value(y_, x, y) - k_.y0) + 32768;
        const int u = value(u_, x / 2, y / 2) - 128, v = value(v_, x / 2, y / 2) - 128;
        rgb[0] = clipped(luma + k_.kr * v);
        rgb[1] = clipped(luma - k_.kg * u - k_.kh * v);
        rgb[2] = clipped(luma + k_.kb * u);
    }

  private:
    static int value(const Plane& plane, std::size_t x, std::size_t y) {
        return plane.data[y * plane.stride_bytes + x * plane.pixel_stride_bytes];
    }

    Coefficients k_;
    Plane y_;
    Plane u_;
    Plane v_;
};

// Walks through the frame as it lies in memory; where a pixel goes in the upright picture moves by
// one step along a row and by another from row to row.
template <typename Reader>
void turn(const Frame& frame, const Reader& reader, Image& out) {
    const Part part = part_of_frame(frame);
    const auto width = static_cast<std::ptrdiff_t>(part.width),
               height = static_cast<std::ptrdiff_t>(part.height);
    const bool is_quarter = frame.rotation_degrees == 90 || frame.rotation_degrees == 270;
    out.reset(static_cast<int>(is_quarter ? height : width),
              static_cast<int>(is_quarter ? width : height));
    const std::ptrdiff_t row = out.width;
    std::ptrdiff_t begin = 0, along = 1, across = row;
    if (frame.rotation_degrees == 90) {
        begin = height - 1, along = row, across = -1;
    } else if (frame.rotation_degrees == 180) {
        begin = width * height - 1, along = -1, across = -row;
    } else if (frame.rotation_degrees == 270) {
        begin = row * (width - 1), along = -row, across = 1;
    }
    if (frame.is_mirrored) {  // the column counts from the other side
        const std::ptrdiff_t column = begin % row;
        begin += row - 1 - 2 * column;
        (is_quarter ? across : along) *= -1;
    }
    for (std::ptrdiff_t y = 0; y < height; ++y) {
        std::ptrdiff_t place = begin + y * across;
        for (std::ptrdiff_t x = 0; x < width; ++x, place += along) {
            reader.read(part.left + static_cast<std::size_t>(x),
                        part.top + static_cast<std::size_t>(y), out.rgb.data() + 3 * place);
        }
    }
}

}  // namespace

void check_frame(const Frame& frame) {
    if (frame.format < FrameFormat::rgb || frame.format > FrameFormat::yuv420) {
        throw CallError("the image's format is " + std::to_string(static_cast<int>(frame.format)) +
                        "; known are EDGEVIT_RGB888, EDGEVIT_RGBA8888, EDGEVIT_BGRA8888, "
                        "EDGEVIT_NV12, EDGEVIT_NV21, EDGEVIT_I420, EDGEVIT_YUV420");
    }
    if (frame.colour < YuvColour::bt601_limited || frame.colour > YuvColour::bt709_full) {
        throw CallError("the image's colour is " + std::to_string(static_cast<int>(frame.colour)) +
                        ", which is no edgevit_yuv_colour");
    }
    if (frame.rotation_degrees % 90 != 0 || frame.rotation_degrees < 0 ||
        frame.rotation_degrees > 270) {
        throw CallError("the image's rotation is " + std::to_string(frame.rotation_degrees) +
                        " degrees; 0, 90, 180 and 270 can be used");
    }
    check_planes(frame);
    const Part part = part_of_frame(frame);
    if (part.width == 0 || part.height == 0 || part.left > frame.width ||
        part.width > frame.width - part.left || part.top > frame.height ||
        part.height > frame.height - part.top) {
        throw CallError("the image's crop of " + std::to_string(part.width) + "x" +
                        std::to_string(part.height) + " pixels at (" + std::to_string(part.left) +
                        ", " + std::to_string(part.top) + ") does not lie in its " +
                        std::to_string(frame.width) + "x" + std::to_string(frame.height));
    }
}

ImageView upright_rgb(const Frame& frame, Image& scratch) {
    if (is_yuv(frame.format)) {
        turn(frame, YuvReader(frame), scratch);
        return scratch.view();
    }
    if (frame.format == FrameFormat::rgb && frame.rotation_degrees == 0 && !frame.is_mirrored) {
        const Part part = part_of_frame(frame);
        const Plane& plane = frame.planes[0];
        return {plane.data + part.top * plane.stride_bytes + 3 * part.left,
                static_cast<int>(part.width), static_cast<int>(part.height), plane.stride_bytes};
    }
    turn(frame, RgbReader(frame), scratch);
    return scratch.view();
}

}  // namespace edgevit
