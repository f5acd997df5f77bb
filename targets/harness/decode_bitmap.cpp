#include <algorithm>
#include <string>

#include "bitmap.h"
#include "core/errors.h"
#include "decode.h"

namespace edgevit {
namespace {

using Masks = std::array<std::uint32_t, 3>;
constexpr Masks kMasks555 = {0x7c00, 0x3e0, 0x1f};
constexpr Masks kMasks565 = {0xf800, 0x7e0, 0x1f};
constexpr Masks kMasks888 = {0xff0000, 0xff00, 0xff};
constexpr std::uint32_t kUncompressed = 0;
constexpr std::uint32_t kBitFields = 3;
constexpr std::array<std::uint32_t, 6> kHeaders = {40, 52, 56, 64, 108, 124};

std::uint32_t number(ByteView file, std::size_t at, std::size_t count) {
    std::uint32_t value = 0;
    for (std::size_t i = 0; i < count; ++i) {
        value |= static_cast<std::uint32_t>(file.data[at + i]) << (8 * i);
    }
    return value;
}

Masks masks_of(ByteView file, std::uint32_t header, unsigned bits, std::uint32_t compression) {
    const bool is_plain = bits == 1 || bits == 4 || bits == 8 || bits == 24 || bits == 32;
    if (compression == kUncompressed && is_plain) {
        return {};
    }
    if (compression == kUncompressed && bits == 16) {
        return kMasks555;
    }
    if (compression == kBitFields && (bits == 16 || bits == 32) && file.size >= 70) {
        const Masks masks = {number(file, 54, 4), number(file, 58, 4), number(file, 62, 4)};
        const std::uint32_t alpha = number(file, 66, 4);
        if (bits == 32 && masks == kMasks888 &&
            (header < 56 || alpha == 0 || alpha == 0xff000000)) {
            return {};
        }
        if (bits == 16 && (masks == kMasks555 || masks == kMasks565)) {
            return masks;
        }
    }
    throw InputError("a BMP of " + std::to_string(bits) + " bits with compression " +
                     std::to_string(compression) + ", which is not read: save it as PNG");
}

void read_palette(ByteView file, std::uint32_t header, Bitmap& bitmap) {
    const std::uint32_t stated = number(file, 46, 4);
    const std::uint64_t count = stated != 0 ? stated : 1ULL << bitmap.bits;
    const std::uint64_t start = 14ULL + header;
    if (count > 256 ||
        start + 4 * count > std::min<std::uint64_t>(file.size, bitmap.offset_bytes)) {
        throw InputError("damaged BMP: a palette of " + std::to_string(count) +
                         " colours has no room");
    }
    for (std::uint64_t i = 0; i < count; ++i) {
        const std::uint8_t* colour = file.data + start + 4 * i;
        bitmap.palette.push_back({colour[2], colour[1], colour[0]});
    }
}

bool is_blank(std::uint8_t c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

// Blanks and comments up to the end of their lines; false where a comment has none.
bool skip_blanks(ByteView file, std::size_t& at) {
    while (at < file.size && (is_blank(file.data[at]) || file.data[at] == '#')) {
        const bool is_comment = file.data[at] == '#';
        while (is_comment && at < file.size && file.data[at] != '\n' && file.data[at] != '\r') {
            ++at;
        }
        if (at >= file.size) {
            return false;
        }
        ++at;
    }
    return true;
}

// The three numbers of a PPM's header, each after blanks and comments; false where there are none.
bool read_numbers(ByteView file, std::size_t& at, std::array<std::uint64_t, 3>& numbers) {
    for (std::uint64_t& value : numbers) {
        const std::size_t start = at;
        if (!skip_blanks(file, at)) {
            return false;
        }
        const std::size_t digits = at;
        for (value = 0;
             at < file.size && at < digits + 9 && file.data[at] >= '0' && file.data[at] <= '9';
             ++at) {
            value = 10 * value + (file.data[at] - '0');
        }
        if (digits == start || at == digits) {
            return false;
        }
    }
    if (at >= file.size || !is_blank(file.data[at])) {
        return false;
    }
    ++at;
    return true;
}

// Pixel `x` of a row, as an index into the palette or a packed colour.
std::uint32_t packed(const std::uint8_t* row, std::size_t x, unsigned bits) {
    if (bits == 16) {
        return row[2 * x] | static_cast<std::uint32_t>(row[2 * x + 1]) << 8;
    }
    const std::size_t per_byte = 8 / bits;
    const auto shift = static_cast<unsigned>((per_byte - 1 - x % per_byte) * bits);
    return (row[x / per_byte] >> shift) & ((1U << bits) - 1);
}

void unpack(const Bitmap& bitmap, const std::uint8_t* row, std::size_t x, std::uint8_t* rgb) {
    if (!bitmap.palette.empty()) {
        std::copy_n(bitmap.palette[packed(row, x, bitmap.bits)].begin(), 3, rgb);
    } else if (bitmap.bits == 8) {
        std::fill_n(rgb, 3, row[x]);
    } else if (bitmap.bits == 16) {
        const std::uint32_t value = packed(row, x, 16);
        for (std::size_t c = 0; c < 3; ++c) {
            const std::uint32_t mask = bitmap.masks[c];
            const std::uint32_t unit = mask & (~mask + 1);
            rgb[c] = static_cast<std::uint8_t>((value & mask) / unit * 255 / (mask / unit));
        }
    } else {
        const std::uint8_t* pixel = row + x * (bitmap.bits / 8);
        for (std::size_t c = 0; c < 3; ++c) {
            rgb[c] = pixel[bitmap.is_rgb ? c : 2 - c];
        }
    }
}

void check_colours(const Bitmap& bitmap, ByteView file) {
    std::uint32_t most = 0;
    for (std::uint64_t y = 0; y < bitmap.height; ++y) {
        const std::uint8_t* row = file.data + bitmap.offset_bytes + y * bitmap.stride_bytes;
        for (std::size_t x = 0; x < bitmap.width; ++x) {
            most = std::max(most, packed(row, x, bitmap.bits));
        }
    }
    if (most >= bitmap.palette.size()) {
        throw InputError("damaged BMP: colour " + std::to_string(most) +
                         " is not in its palette of " + std::to_string(bitmap.palette.size()));
    }
}

}  // namespace

Bitmap read_bmp(ByteView file) {
    if (file.size < 54) {
        throw InputError("damaged BMP: the file ends inside its header");
    }
    Bitmap bitmap;
    bitmap.offset_bytes = number(file, 10, 4);
    const std::uint32_t header = number(file, 14, 4);
    if (std::find(kHeaders.begin(), kHeaders.end(), header) == kHeaders.end()) {
        throw InputError("a BMP with a header of " + std::to_string(header) +
                         " bytes, which is not read: save it anew");
    }
    const auto width = static_cast<std::int32_t>(number(file, 18, 4));
    const auto height = static_cast<std::int32_t>(number(file, 22, 4));
    const std::uint32_t planes = number(file, 26, 2);
    bitmap.bits = number(file, 28, 2);
    if (width <= 0 || height == 0 || height == INT32_MIN || planes != 1) {
        throw InputError("damaged BMP: it has " + std::to_string(width) + "x" +
                         std::to_string(height) + " pixels in " + std::to_string(planes) +
                         " planes");
    }
    bitmap.bottom_up = height > 0;
    bitmap.width = static_cast<std::uint64_t>(width);
    bitmap.height = static_cast<std::uint64_t>(height > 0 ? height : -height);
    bitmap.masks = masks_of(file, header, bitmap.bits, number(file, 30, 4));
    if (bitmap.bits <= 8) {
        read_palette(file, header, bitmap);
    }
    bitmap.stride_bytes = (bitmap.width * bitmap.bits + 31) / 32 * 4;
    const std::uint64_t used = (bitmap.width * bitmap.bits + 7) / 8;
    // Neither product overflows: 2^31 rows of 2^33 bytes are less than 2^64.
    if (bitmap.offset_bytes < 14ULL + header ||
        bitmap.offset_bytes + bitmap.stride_bytes * (bitmap.height - 1) + used > file.size) {
        throw InputError("damaged BMP: the file ends inside the image");
    }
    return bitmap;
}

Bitmap read_ppm(ByteView file) {
    std::size_t at = 2;
    std::array<std::uint64_t, 3> numbers = {};
    if (!read_numbers(file, at, numbers)) {
        throw InputError("damaged PPM: no header of width, height and largest value");
    }
    if (numbers[2] != 255) {
        throw InputError("a PPM with " + std::to_string(numbers[2]) +
                         " as its largest value, 255 is read: save it as PNG");
    }
    Bitmap bitmap;
    const unsigned channels = file.data[1] == '6' ? 3 : 1;
    bitmap.width = numbers[0];
    bitmap.height = numbers[1];
    bitmap.offset_bytes = at;
    bitmap.stride_bytes = bitmap.width * channels;
    bitmap.bits = 8 * channels;
    bitmap.is_rgb = true;
    if (bitmap.width == 0 || bitmap.height == 0 ||
        at + bitmap.stride_bytes * bitmap.height > file.size) {
        throw InputError("damaged PPM: the file ends inside the image");
    }
    return bitmap;
}

void decode_bitmap(const Bitmap& bitmap, ByteView file, Image& out) {
    if (!bitmap.palette.empty()) {
        check_colours(bitmap, file);
    }
    out.reset(static_cast<int>(bitmap.width), static_cast<int>(bitmap.height));
    for (std::uint64_t y = 0; y < bitmap.height; ++y) {
        const std::uint64_t stored = bitmap.bottom_up ? bitmap.height - 1 - y : y;
        const std::uint8_t* row = file.data + bitmap.offset_bytes + stored * bitmap.stride_bytes;
        std::uint8_t* rgb = out.row(static_cast<int>(y));
        for (std::size_t x = 0; x < bitmap.width; ++x, rgb += 3) {
            unpack(bitmap, row, x, rgb);
        }
    }
}

}  // namespace edgevit
