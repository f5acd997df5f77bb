#include "decode.h"

#include <algorithm>
#include <array>
#include <string>

#include "core/errors.h"
#include "core/limits.h"

namespace edgevit {
namespace {

template <std::size_t N>
bool starts_with(ByteView file, const std::array<std::uint8_t, N>& magic) {
    return file.size >= N && std::equal(magic.begin(), magic.end(), file.data);
}

constexpr std::array<std::uint8_t, 3> kJpegMagic = {0xff, 0xd8, 0xff};
constexpr std::array<std::uint8_t, 8> kPngMagic = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};

}  // namespace

void check_image_size(std::uint64_t width, std::uint64_t height) {
    if (width == 0 || height == 0 || width > kMaxImagePixels || height > kMaxImagePixels ||
        width * height > kMaxImagePixels) {
        throw InputError("it has " + std::to_string(width) + "x" + std::to_string(height) +
                         " pixels; 1 to 64 million are read");
    }
}

void decode_image(ByteView file, Image& out, bool with_alpha) {
    if (starts_with(file, kJpegMagic)) {
        decode_jpeg(file, out);
    } else if (starts_with(file, kPngMagic)) {
        decode_png(file, out, with_alpha);
    } else {
        throw InputError(file.size == 0 ? "the file is empty" : "neither a JPEG nor a PNG");
    }
}

}  // namespace edgevit
