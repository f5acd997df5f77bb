// Whether an encoded image is whole, told from its structure, without decoding it: the rules of
// edgevit/data/structure.py, so that both languages refuse the same files.
#pragma once

#include <string>

#include "core/bytes.h"

namespace edgevit {

// The file's kind: "JPEG", "PNG", "WebP", "BMP" or "PPM". Raises InputError, without naming the
// file, when it is no image that is read, is cut short or damaged, or has over 64 million pixels.
std::string check_structure(ByteView file);

// Of a WebP, the picture alone: a VP8 or VP8L bit stream, without its alpha, colour profile and the
// like. Raises InputError where there is none, or an animation.
ByteView webp_image(ByteView file);

}  // namespace edgevit
