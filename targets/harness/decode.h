// JPEG and PNG files to RGB pixels, with the values that Pillow's convert("RGB") gives.
//
//   JPEG  grey, YCbCr, RGB; CMYK and YCCK in Adobe's inverted convention; progressive too
//   PNG   grey 1 to 8 bits, palette, RGB, with or without alpha; alpha is dropped, not blended;
//         of 16-bit colour the high byte is taken. 16-bit grey is refused: Pillow clips it to 255.
//
// EXIF orientation is not applied, colour profiles and gamma are ignored: Pillow's convert does
// the same. The kind of file is told by its first bytes, not by its name.
#pragma once

#include "core/bytes.h"
#include "core/image.h"

namespace edgevit {

// Raises InputError saying what is wrong with the bytes; the caller knows the file's name.
// With `with_alpha` a PNG becomes RGBA, as convert("RGBA") has it; a JPEG has no alpha.
void decode_image(ByteView file, Image& out, bool with_alpha = false);

// The two decoders behind it, and the check both make before they allocate.
void decode_jpeg(ByteView file, Image& out);
void decode_png(ByteView file, Image& out, bool with_alpha = false);
void check_image_size(std::uint64_t width, std::uint64_t height);

}  // namespace edgevit
