// Encoded images to RGB pixels, with the values that Pillow's convert("RGB") gives.
//
//   JPEG  grey, YCbCr, RGB; CMYK and YCCK in Adobe's inverted convention; progressive too
//   PNG   grey 1 to 8 bits, palette, RGB, with or without alpha; alpha is dropped, not blended;
//         of 16-bit colour the high byte is taken. 16-bit grey is refused: Pillow clips it to 255.
//   WebP  lossy and lossless, where libwebp was there at the build; alpha is dropped
//   BMP   uncompressed, with a palette, 16, 24 or 32 bits; PPM and PGM of 8 bits
//
// EXIF orientation is not applied, colour profiles and gamma are ignored: Pillow's convert does
// the same. The kind of file is told by its first bytes, not by its name.
#pragma once

#include "bitmap.h"
#include "core/bytes.h"
#include "core/image.h"

namespace edgevit {

// Raises InputError saying what is wrong with the bytes; the caller knows the file's name.
// With `with_alpha` a PNG or WebP becomes RGBA, as convert("RGBA") has it; others have no alpha.
void decode_image(ByteView file, Image& out, bool with_alpha = false);

// The decoders behind it, and the check all make before they allocate. decode_webp raises
// ToolMissing in a build without libwebp.
void decode_jpeg(ByteView file, Image& out);
void decode_png(ByteView file, Image& out, bool with_alpha = false);
void decode_webp(ByteView file, Image& out, bool with_alpha = false);
void decode_bitmap(const Bitmap& bitmap, ByteView file, Image& out);
void check_image_size(std::uint64_t width, std::uint64_t height);

}  // namespace edgevit
