// Any width, height, stride and format over a buffer of exactly the bytes that they promise,
// through the C API: an error code, or a result.
//   bytes 0-1 width, 2-3 height (modulo 1500), 4-5 stride beyond the row, 6 format, 7 which sizes
//   go wrong; then pixels, repeated where they are too few.

#include "edgevit/edgevit.h"
#include "fuzz.h"

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
    edgevit_image image = {nullptr, pair(0) % 1500, pair(2) % 1500, 0, data[6] % 5 - 1};
    const std::size_t row_bytes = image.width * (image.format == EDGEVIT_RGB888 ? 3 : 4);
    image.stride_bytes = row_bytes + pair(4);
    // The last row ends with its last pixel, where the allocation does.
    const std::size_t needed =
        image.height == 0 ? 0 : image.stride_bytes * (image.height - 1) + row_bytes;
    if (needed > (1 << 18)) {
        return 0;
    }
    edgevit::Bytes pixels(needed);
    for (std::size_t i = 0; i < needed; ++i) {
        pixels[i] = data[8 + i % (size - 8)];
    }
    image.pixels = pixels.data();
    // What must be refused before a pixel is read.
    const int fault = data[7] % 8;
    image.stride_bytes = fault == 1 && row_bytes > 0 ? row_bytes - 1 : image.stride_bytes;
    image.width = fault == 2 ? SIZE_MAX / (pair(0) + 1) : image.width;
    image.height = fault == 3 ? SIZE_MAX / (pair(2) + 1) : image.height;
    image.stride_bytes = fault == 4 ? SIZE_MAX - pair(4) : image.stride_bytes;
    edgevit_result results[9];
    std::size_t count = 1 + data[7] / 32;
    edgevit_error error;
    const std::size_t room = count;
    const edgevit_status status = edgevit_classify(session, &image, results, &count, &error);
    FUZZ_REQUIRE(status == error.code);
    FUZZ_REQUIRE((status == EDGEVIT_OK) == (error.message[0] == '\0'));
    if (status == EDGEVIT_OK) {
        FUZZ_REQUIRE(fault == 0 || fault > 4);
        FUZZ_REQUIRE(count >= 1 && count <= room);
    } else {
        FUZZ_REQUIRE(status == EDGEVIT_BAD_INPUT || status == EDGEVIT_BAD_CALL);
    }
    return 0;
}
