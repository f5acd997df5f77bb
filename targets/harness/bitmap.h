// BMP and PPM files: headers here for check_structure(), pixels in decode_bitmap.cpp. The rules are
// those of edgevit/data/bitmap.py.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/bytes.h"

namespace edgevit {

// The parsed header of a file whose bytes are all there.
struct Bitmap {
    std::uint64_t width = 0;
    std::uint64_t height = 0;
    std::uint64_t offset_bytes = 0;  // of the first row
    std::uint64_t stride_bytes = 0;  // from row to row
    unsigned bits = 0;               // of a pixel; 8 without a palette is grey
    bool bottom_up = false;
    bool is_rgb = false;                               // else blue comes first
    std::vector<std::array<std::uint8_t, 3>> palette;  // RGB
    std::array<std::uint32_t, 3> masks = {};           // of a pixel of 16 bits
};

// Raise InputError where the file is damaged, cut short or of another kind.
Bitmap read_bmp(ByteView file);
Bitmap read_ppm(ByteView file);

}  // namespace edgevit
