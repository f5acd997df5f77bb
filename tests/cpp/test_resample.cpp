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
            resampler.resize(source(), width, height,
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
    Resampler().resize(in, in.width, in.height, Interpolation::bicubic, out);
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
    Resampler().resize(in, 10, 7, Interpolation::bilinear, a);
    Resampler().resize(view, 10, 7, Interpolation::bilinear, b);
    CHECK(a.rgb == b.rgb);
}
