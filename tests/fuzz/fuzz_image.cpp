// Any bytes as a JPEG or PNG file: refused with InputError, or pixels that can be preprocessed.
#include "classification.h"
#include "core/errors.h"
#include "core/preprocess.h"
#include "decode.h"
#include "fuzz.h"
#include "manifests.h"
#include "session.h"

using namespace edgevit;

namespace {

// Whether the file may claim more than 250,000 pixels: decoding a large, empty image finds
// nothing and takes seconds. PNG keeps its size at byte 16; a JPEG may have it in any segment
// 0xFFC0 to 0xFFCF.
bool claims_many_pixels(const std::uint8_t* data, std::size_t size) {
    const auto number = [data](std::size_t at, std::size_t bytes) {
        std::uint64_t value = 0;
        for (std::size_t i = 0; i < bytes; ++i) {
            value = value << 8 | data[at + i];
        }
        return value;
    };
    constexpr std::uint64_t kMany = 250'000;
    if (size >= 24 && data[0] == 0x89 && number(16, 4) * number(20, 4) > kMany) {
        return true;
    }
    for (std::size_t i = 0; i + 9 <= size; ++i) {
        if (data[i] == 0xff && data[i + 1] >> 4 == 0xc &&
            number(i + 5, 2) * number(i + 7, 2) > kMany) {
            return true;
        }
    }
    return false;
}

}  // namespace

#ifdef EDGEVIT_FUZZ
// PNG refuses a chunk whose checksum is wrong, so a mutation has to put it right to be read at all.
extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                               std::size_t max_size, unsigned seed) {
    size = LLVMFuzzerMutate(data, size, max_size);
    constexpr std::size_t kSignature = 8, kAround = 12;  // a chunk's length, type and checksum
    const bool is_png = size > 1 && data[0] == 0x89 && data[1] == 'P';
    for (std::size_t at = kSignature; is_png && seed % 8 != 0 && at + kAround <= size;) {
        std::size_t length = 0;
        for (std::size_t i = 0; i < 4; ++i) {
            length = length << 8 | data[at + i];
        }
        if (length > size - at - kAround) {
            break;
        }
        std::uint32_t crc = ~0U;
        for (std::size_t i = at + 4; i < at + 8 + length; ++i) {
            crc ^= data[i];
            for (int bit = 0; bit < 8; ++bit) {
                crc = crc >> 1 ^ (crc % 2 != 0 ? 0xedb88320U : 0U);
            }
        }
        for (std::size_t i = 0; i < 4; ++i) {
            data[at + 8 + length + i] = static_cast<std::uint8_t>(~crc >> (24 - 8 * i));
        }
        at += kAround + length;
    }
    return size;
}
#endif

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static std::vector<std::unique_ptr<Session>> sessions = null_sessions();
    if (claims_many_pixels(data, size)) {
        return 0;
    }
    Image image;
    try {
        decode_image({data, size}, image);
    } catch (const InputError&) { return 0; }
    FUZZ_REQUIRE(image.rgb.size() == image.stride_bytes() * static_cast<std::size_t>(image.height));
    for (const auto& session : sessions) {
        try {
            session->preprocess(pixels_of(image));
            session->set_input(session->input());
            session->invoke();
            FUZZ_REQUIRE(Classification(*session).top_k(3).size() == 3);
        } catch (const InputError&) {  // too small for the crop, too thin to resize
        }
    }
    return 0;
}
