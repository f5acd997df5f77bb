#include "core/resample.h"

#include <doctest/doctest.h>

#include <cstdio>

#include "support.h"

using namespace edgevit;
using namespace edgevit::test;

namespace {

ImageView source() {
    const StoredTensor& tensor = goldens().tensors.at("resize/source");
    const auto width = static_cast<int>(tensor.shape[1]);
    return {tensor.bytes.data(), width, static_cast<int>(tensor.shape[0]),
            static_cast<std::size_t>(width) * 3};
}

void resize(const ImageView& in, int width, int height, Interpolation interpolation, Image& out) {
    Resampler().resize(in, {width, height}, {0, 0, width, height}, interpolation, out);
}

// Pixels without a pattern, the same every time.
Image noise(int width, int height) {
    Image image;
    image.reset(width, height);
    std::uint32_t state = 1;
    for (std::uint8_t& value : image.rgb) {
        state = state * 1664525U + 1013904223U;
        value = static_cast<std::uint8_t>(state >> 24);
    }
    return image;
}

Bytes pixels_in(const ImageView& in, const Box& box) {
    const ImageView part = part_of(in, box);
    Bytes pixels;
    for (int y = 0; y < part.height; ++y) {
        pixels.insert(pixels.end(), part.row(y), part.row(y) + part.width * 3);
    }
    return pixels;
}

}  // namespace

TEST_CASE("resizing gives Pillow's pixels to the last bit") {
    Resampler resampler;  // one for all: nothing of one size may leak into the next
    Image out;
    int cases = 0;
    for (const char* kind : {"bicubic", "bilinear"}) {
        const std::string prefix = std::string("resize/") + kind + "/";
        for (const std::string& size : golden_names(prefix)) {
            CAPTURE(kind);
            CAPTURE(size);
            int width = 0, height = 0;
            REQUIRE(std::sscanf(size.c_str(), "%dx%d", &width, &height) == 2);
            const bool cubic = std::string(kind) == "bicubic";
            resampler.resize(source(), {width, height}, {0, 0, width, height},
                             cubic ? Interpolation::bicubic : Interpolation::bilinear, out);
            CHECK(out.width == width);
            CHECK(out.height == height);
            CHECK(out.rgb == goldens().tensors.at(prefix + size).bytes);
            ++cases;
        }
    }
    CHECK(cases == 16);
}

TEST_CASE("resizing to the same size copies") {
    const ImageView in = source();
    Image out;
    resize(in, in.width, in.height, Interpolation::bicubic, out);
    CHECK(out.rgb == goldens().tensors.at("resize/source").bytes);
}

TEST_CASE("rows may lie further apart than they are long") {
    const ImageView in = source();
    Bytes padded;
    for (int y = 0; y < in.height; ++y) {
        padded.insert(padded.end(), in.row(y), in.row(y) + in.width * 3);
        padded.insert(padded.end(), 5, 0xee);
    }
    const ImageView view = {padded.data(), in.width, in.height, in.stride_bytes + 5};
    Image a, b;
    resize(in, 10, 7, Interpolation::bilinear, a);
    resize(view, 10, 7, Interpolation::bilinear, b);
    CHECK(a.rgb == b.rgb);
}

TEST_CASE("a part of a resized picture is what the whole one has there") {
    // Shrunk, enlarged, one side alone, thin ones, and one that stays as it is.
    const Size sizes[][2] = {{{29, 21}, {13, 17}},  {{29, 21}, {64, 48}},  {{29, 21}, {29, 9}},
                             {{29, 21}, {50, 21}},  {{3, 200}, {8, 533}},  {{700, 2}, {2450, 7}},
                             {{1, 400}, {5, 2000}}, {{90, 70}, {7, 5}},    {{29, 21}, {29, 21}},
                             {{5, 901}, {3, 540}},  {{1000, 1000}, {9, 9}}};
    Resampler resampler;  // one for all: a part of one size may not leak into the next
    Image whole, part;
    int cases = 0;
    for (const auto& [from, to] : sizes) {
        const Image picture = noise(from.width, from.height);
        const int w = to.width, h = to.height;
        const Box boxes[] = {{0, 0, w, h},
                             {0, 0, 1, 1},
                             {w - 1, h - 1, 1, 1},
                             {w / 2, h / 3, w - w / 2, h - h / 3},
                             {(w - w / 3) / 2, (h - h / 3) / 2, w / 3 + 1, h / 3 + 1}};
        for (const Interpolation filter : {Interpolation::bicubic, Interpolation::bilinear}) {
            resize(picture.view(), w, h, filter, whole);
            for (const Box& box : boxes) {
                CAPTURE(from.width);
                CAPTURE(from.height);
                CAPTURE(w);
                CAPTURE(h);
                CAPTURE(box.left);
                CAPTURE(box.top);
                resampler.resize(picture.view(), to, box, filter, part);
                CHECK(part.width == box.width);
                CHECK(part.height == box.height);
                CHECK(part.rgb == pixels_in(whole.view(), box));
                ++cases;
            }
        }
    }
    CHECK(cases == 110);
}
