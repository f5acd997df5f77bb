#include "core/errors.h"
#include "decode.h"
#include "structure.h"

#ifdef EDGEVIT_WEBP
#include <webp/decode.h>
#endif

namespace edgevit {

#ifdef EDGEVIT_WEBP

void decode_webp(ByteView file, Image& out, bool with_alpha) {
    int width = 0;
    int height = 0;
    // A decoder may read on into the padding of the file: it is zero for every reader.
    const ByteView part = with_alpha ? file : webp_image(file);
    Bytes image(part.data, part.data + part.size);
    image.resize(image.size() + image.size() % 2);
    if (WebPGetInfo(image.data(), image.size(), &width, &height) == 0) {
        throw InputError("damaged WebP: its header cannot be read");
    }
    check_image_size(static_cast<std::uint64_t>(width), static_cast<std::uint64_t>(height));
    out.reset(width, height, with_alpha ? 4 : 3);
    const auto decode = with_alpha ? WebPDecodeRGBAInto : WebPDecodeRGBInto;
    if (decode(image.data(), image.size(), out.rgb.data(), out.rgb.size(),
               static_cast<int>(out.stride_bytes())) == nullptr) {
        throw InputError("damaged WebP: its pixels cannot be read");
    }
}

#else

void decode_webp(ByteView, Image&, bool) {
    throw ToolMissing(
        "a WebP image, and this edgevit-harness was built without libwebp: install libwebp-dev "
        "(apt-get install -y libwebp-dev) and build it again");
}

#endif

}  // namespace edgevit
