#include "decode.h"

#include <string>

#include "core/errors.h"
#include "core/limits.h"
#include "structure.h"

namespace edgevit {

void check_image_size(std::uint64_t width, std::uint64_t height) {
    if (width == 0 || height == 0 || width > kMaxImagePixels || height > kMaxImagePixels ||
        width * height > kMaxImagePixels) {
        throw InputError("it has " + std::to_string(width) + "x" + std::to_string(height) +
                         " pixels; 1 to 64 million are read");
    }
}

void decode_image(ByteView file, Image& out, bool with_alpha) {
    const std::string kind = check_structure(file);
    if (kind == "JPEG") {
        decode_jpeg(file, out);
    } else if (kind == "PNG") {
        decode_png(file, out, with_alpha);
    } else if (kind == "WebP") {
        decode_webp(file, out, with_alpha);
    } else {
        decode_bitmap(kind == "BMP" ? read_bmp(file) : read_ppm(file), file, out);
    }
}

}  // namespace edgevit
