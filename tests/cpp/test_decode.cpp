#include "decode.h"

#include <doctest/doctest.h>

#include "support.h"

using namespace edgevit;
using namespace edgevit::test;

namespace {

std::string refusal(ByteView file) {
    return message_of<Error>([&] {
        Image image;
        decode_image(file, image);
    });
}

}  // namespace

TEST_CASE("with alpha a PNG has Pillow's RGBA pixels") {
    const Safetensors file = read_safetensors(EDGEVIT_TEST_DATA "/preparation.safetensors");
    int cases = 0;
    for (const auto& [name, tensor] : file.tensors) {
        const std::size_t end = name.find("/file");
        if (name.compare(0, 6, "alpha/") != 0 || end == std::string::npos) {
            continue;
        }
        CAPTURE(name);
        Image image;
        decode_image(tensor.bytes, image, true);
        CHECK(image.channels == 4);
        CHECK(image.rgb == file.tensors.at(name.substr(0, end) + "/rgba").bytes);
        decode_image(tensor.bytes, image);
        CHECK(image.channels == 3);
        ++cases;
    }
    CHECK(cases == 8);
}

TEST_CASE("images decode to Pillow's pixels") {
    Image image;  // one for all: a smaller picture must not keep a larger one's pixels
    int cases = 0;
    int without_libwebp = 0;
    for (const std::string& name : golden_names("decode/")) {
        if (!contains(name, "/file")) {
            continue;
        }
        CAPTURE(name);
        ++cases;
        try {
            decode_image(goldens().tensors.at("decode/" + name).bytes, image);
        } catch (const ToolMissing&) {
            CHECK(contains(name, "webp"));
            ++without_libwebp;
            continue;
        }
        const StoredTensor& expected =
            goldens().tensors.at("decode/" + name.substr(0, name.rfind('/')) + "/rgb");
        CHECK(image.height == expected.shape[0]);
        CHECK(image.width == expected.shape[1]);
        CHECK(image.rgb == expected.bytes);
    }
    CHECK(cases == 57);
    if (without_libwebp > 0) {
        MESSAGE("not checked, for libwebp was not there at the build: " << without_libwebp);
    }
}

TEST_CASE("what is no readable image is refused with its reason") {
    CHECK(contains(refusal(goldens().tensors.at("refuse/png-grey-16").bytes), "16-bit grey"));
    CHECK(contains(refusal(goldens().tensors.at("refuse/png-colour-beyond-palette").bytes),
                   "palette of 3"));
    CHECK(contains(refusal(goldens().tensors.at("refuse/gif").bytes),
                   "a GIF, and neither a JPEG nor a PNG"));
    CHECK(contains(refusal(goldens().tensors.at("refuse/empty").bytes), "empty"));
    CHECK(contains(refusal(goldens().tensors.at("refuse/magic").bytes), "damaged JPEG"));
    CHECK(contains(refusal(goldens().tensors.at("refuse/web-page").bytes), "a web page (HTML)"));
    for (const std::string& name : golden_names("refuse/")) {
        CAPTURE(name);
        CHECK(refusal(goldens().tensors.at("refuse/" + name).bytes) != "");
    }
}

TEST_CASE("a file that ends early is refused, wherever it ends") {
    for (const char* name :
         {"jpeg-420", "jpeg-progressive-420", "jpeg-cmyk", "png-rgb", "png-interlaced",
          "png-palette-16", "webp-lossy", "webp-lossless", "bmp-rgb", "bmp-palette", "ppm"}) {
        const Bytes& whole = goldens().tensors.at(std::string("decode/") + name + "/file").bytes;
        // The rows of a BMP may lack the last one's padding.
        const std::size_t tail = std::string(name).substr(0, 3) == "bmp" ? 3 : 0;
        for (std::size_t size = 0; size + tail < whole.size(); ++size) {
            CAPTURE(name);
            CAPTURE(size);
            CHECK(refusal({whole.data(), size}) != "");
        }
    }
}

TEST_CASE("flipped bytes give an error or other pixels, never a crash") {
    for (const std::string& name : golden_names("decode/")) {
        if (!contains(name, "/file")) {
            continue;
        }
        Bytes file = goldens().tensors.at("decode/" + name).bytes;
        for (std::size_t at = 0; at < file.size(); at += 3) {
            const std::uint8_t before = file[at];
            for (const int flip : {0x01, 0x80, 0xff}) {
                file[at] = static_cast<std::uint8_t>(before ^ flip);
                refusal(file);
            }
            file[at] = before;
        }
    }
}

TEST_CASE("a picture larger than 64 million pixels is refused before memory is taken") {
    std::string png = golden_text("decode/png-rgb/file");
    // 30000 x 30000 in the header, with the checksum that goes with it.
    const std::string header("\x49\x48\x44\x52\x00\x00\x75\x30\x00\x00\x75\x30\x08\x02\x00\x00\x00",
                             17);
    png.replace(12, header.size(), header);
    std::uint32_t crc = 0xffffffff;
    for (const char c : header) {
        crc ^= static_cast<std::uint8_t>(c);
        for (int bit = 0; bit < 8; ++bit) {
            crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0xedb88320U : 0U);
        }
    }
    for (std::size_t i = 0; i < 4; ++i) {
        png[29 + i] = static_cast<char>((~crc) >> (24 - 8 * i));
    }
    CHECK(contains(refusal(Bytes(png.begin(), png.end())), "30000x30000"));
    CHECK_THROWS_AS(check_image_size(0, 5), InputError);
    CHECK_THROWS_AS(check_image_size(1ULL << 40, 1ULL << 40), InputError);
    CHECK_NOTHROW(check_image_size(8000, 8000));
}
