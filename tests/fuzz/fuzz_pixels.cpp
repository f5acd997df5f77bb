// Any width, height, stride and format over a buffer of exactly the bytes that they promise,
// through the C API: an error code, or a result.
//   bytes 0-1 width, 2-3 height (modulo 1500), 4-5 stride beyond the row, 6 format, 7 which sizes
//   go wrong; then pixels, repeated where they are too few.

#include "edgevit/edgevit.h"
#include "fuzz.h"

#include <array>

#include "core/bytes.h"

namespace {

edgevit_session* open() {
    edgevit_error error;
    edgevit_session* session = nullptr;
    edgevit_open(EDGEVIT_FUZZ_ARTIFACT, nullptr, &session, &error);
    FUZZ_REQUIRE(session != nullptr);
    return session;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static edgevit_session* session = open();
    if (size < 9) {
        return 0;
    }
    const auto pair = [data](std::size_t at) {
        return static_cast<std::size_t>(data[at] << 8 | data[at + 1]);
    };
    // Longer sides cost time and find nothing: the long side is enlarged with the short one.
    edgevit_image image;
    edgevit_image_init(&image);
    image.width = pair(0) % 1500, image.height = pair(2) % 1500;
    image.format = data[6] % 9 - 1;
    image.colour = data[6] / 9 % 4;
    image.rotation_degrees = 90 * (data[6] / 36 % 4);
    image.is_mirrored = data[7] / 8 % 2;
    const bool is_yuv = image.format >= EDGEVIT_NV12;
    const std::size_t padding = pair(4), packed = image.format == EDGEVIT_RGB888 ? 3 : 4;
    std::array<edgevit::Bytes, 3> planes;
    for (std::size_t i = 0; i < (is_yuv ? 3 : 1); ++i) {
        const std::size_t step = i == 0 ? 1 : 2;  // of the sides; of I420 a stride of its own
        const std::size_t width = (image.width + step - 1) / step,
                          height = (image.height + step - 1) / step;
        image.planes[i].pixel_stride_bytes = is_yuv ? step : 0;
        const std::size_t row_bytes = width * (is_yuv ? step : packed);
        image.planes[i].stride_bytes = row_bytes + padding;
        // The last row ends with its last pixel, where the allocation does.
        const std::size_t needed =
            height == 0 ? 0 : image.planes[i].stride_bytes * (height - 1) + row_bytes;
        if (needed > (1 << 18)) {
            return 0;
        }
        planes[i].resize(needed);
        for (std::size_t k = 0; k < needed; ++k) {
            planes[i][k] = data[8 + k % (size - 8)];
        }
        image.planes[i].data = planes[i].data();
    }
    // What must be refused before a pixel is read.
    const int fault = data[7] % 8;
    const std::size_t row_bytes = image.width * (is_yuv ? 1 : packed);
    std::size_t& stride = image.planes[0].stride_bytes;
    if (fault == 1 && row_bytes > 0 && image.height > 1) {
        stride = row_bytes - 1;
    } else if (fault == 2) {
        image.width = SIZE_MAX / (pair(0) + 1);
    } else if (fault == 3) {
        image.height = SIZE_MAX / (pair(2) + 1);
    } else if (fault == 4) {
        stride = SIZE_MAX - pair(4);
    } else if (fault == 5) {  // not refused: a part in the picture
        image.crop_left = image.width / 3, image.crop_top = image.height / 2;
        image.crop_width = image.width - image.crop_left;
        image.crop_height = image.height - image.crop_top;
    }
    edgevit_result results[9];
    std::size_t count = 1 + data[7] / 32;
    edgevit_error error;
    const std::size_t room = count;
    const edgevit_status status = edgevit_classify(session, &image, results, &count, &error);
    FUZZ_REQUIRE(status == error.code);
    FUZZ_REQUIRE((status == EDGEVIT_OK) == (error.message[0] == '\0'));
    if (status == EDGEVIT_OK) {
        FUZZ_REQUIRE(fault == 0 || fault > 4 || (fault == 1 && image.height == 1));
        FUZZ_REQUIRE(count >= 1 && count <= room);
    } else {
        FUZZ_REQUIRE(status == EDGEVIT_BAD_INPUT || status == EDGEVIT_BAD_CALL);
    }
    return 0;
}
