// The parts of the Core ML back-end that need no Core ML.
#include <doctest/doctest.h>

#include <limits>

#include "packing.h"
#include "placement.h"
#include "support.h"

using namespace edgevit;
using namespace edgevit::coreml;
using namespace edgevit::test;

namespace {

Extents extents(std::vector<std::int64_t> shape, std::vector<std::int64_t> strides) {
    Extents result;
    result.rank = shape.size();
    std::copy(shape.begin(), shape.end(), result.shape.begin());
    std::copy(strides.begin(), strides.end(), result.strides.begin());
    return result;
}

}  // namespace

TEST_CASE("pixels become BGRA or grey rows, and what lies between the rows stays as it was") {
    const Bytes pixels = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
    Bytes rows(2 * 12, 77);
    REQUIRE(pack_rows(pixels, Channels::rgb, 2, 2, 12, rows.data()));
    CHECK(rows == Bytes{3, 2, 1, 255, 6,  5,  4,  255, 77, 77, 77, 77,  //
                        9, 8, 7, 255, 12, 11, 10, 255, 77, 77, 77, 77});
    REQUIRE(pack_rows(pixels, Channels::bgr, 2, 2, 12, rows.data()));
    CHECK(rows == Bytes{1, 2, 3, 255, 4,  5,  6,  255, 77, 77, 77, 77,  //
                        7, 8, 9, 255, 10, 11, 12, 255, 77, 77, 77, 77});
    Bytes grey(2 * 8, 77);
    REQUIRE(pack_rows(pixels, Channels::grey, 6, 2, 8, grey.data()));
    CHECK(grey == Bytes{1, 2, 3, 4, 5, 6, 77, 77, 7, 8, 9, 10, 11, 12, 77, 77});
    CHECK_FALSE(pack_rows(pixels, Channels::rgb, 2, 2, 7, rows.data()));
    CHECK_FALSE(pack_rows(pixels, Channels::rgb, 2, 1, 8, rows.data()));
    CHECK_FALSE(pack_rows(pixels, Channels::grey, 6, 2, 5, grey.data()));
    CHECK_FALSE(pack_rows(pixels, Channels::rgba, 3, 1, 12, rows.data()));
}

TEST_CASE("an array with strides is filled and read in row-major order") {
    // Two rows of three, every second element of rows of eight.
    const Extents strided = extents({1, 2, 3}, {99, 8, 2});
    CHECK(strided.elements() == 6);
    CHECK(strided.span_elements() == 13);
    const std::vector<float> packed = {1, 2, 3, 4, 5, 6};
    std::vector<float> memory(13, -1);
    REQUIRE(scatter(packed.data(), strided, memory.data(), 13 * 4));
    CHECK(memory == std::vector<float>{1, -1, 2, -1, 3, -1, -1, -1, 4, -1, 5, -1, 6});
    std::vector<float> back(6);
    REQUIRE(gather(memory.data(), 13 * 4, Element::float32, strided, back.data()));
    CHECK(back == packed);

    const std::vector<double> doubles = {1.5, 0, -2.5};
    std::vector<float> two(2);
    REQUIRE(gather(doubles.data(), 24, Element::float64, extents({2}, {2}), two.data()));
    CHECK(two == std::vector<float>{1.5F, -2.5F});
    const std::vector<std::uint16_t> halves = {0x3c00, 0xc100};
    REQUIRE(gather(halves.data(), 4, Element::float16, extents({1, 2}, {2, 1}), two.data()));
    CHECK(two == std::vector<float>{1.0F, -2.5F});
}

TEST_CASE("an array that reaches beyond its memory is not touched") {
    std::vector<float> memory(12, -1), packed(6, 3);
    CHECK_FALSE(scatter(packed.data(), extents({2, 3}, {8, 2}), memory.data(), 12 * 4));
    CHECK_FALSE(
        gather(memory.data(), 47, Element::float64, extents({2, 3}, {3, 1}), packed.data()));
    CHECK(memory == std::vector<float>(12, -1));
    constexpr std::int64_t huge = std::numeric_limits<std::int64_t>::max();
    for (const Extents& bad : {extents({}, {}), extents({0}, {1}), extents({2}, {-1}),
                               extents({2, 2}, {huge, huge}), extents({huge}, {huge})}) {
        CHECK(bad.span_elements() == 0);
        CHECK_FALSE(scatter(packed.data(), bad, memory.data(), 12 * 4));
    }
    Extents deep = extents({1}, {1});
    deep.rank = kMaxTensorRank + 1;
    CHECK(deep.span_elements() == 0);
}

TEST_CASE("an operation is named without its opset") {
    CHECK(without_opset("ios17.conv") == "conv");
    CHECK(without_opset("conv") == "conv");
    CHECK(without_opset("ios.conv") == "ios.conv");
    CHECK(without_opset("iosx.conv") == "iosx.conv");
    CHECK(without_opset("ios17") == "ios17");
}

TEST_CASE("operations are counted by device; constants are none") {
    const OpReport report = report_placement({{"const", std::nullopt},
                                              {"ios16.constexpr_affine_dequantize", "cpu"},
                                              {"ios17.conv", "ane"},
                                              {"ios16.gelu", "cpu"},
                                              {"ios17.conv", "gpu"},
                                              {"ios16.gelu", "cpu"},
                                              {"identity", std::nullopt}});
    CHECK(report.total == 5);
    CHECK(report.delegated == 2);
    CHECK(report.not_delegated == std::map<std::string, std::int64_t>{{"gelu", 2}});
    CHECK(report.devices ==
          std::map<std::string, std::int64_t>{{"ane", 1}, {"cpu", 2}, {"gpu", 1}, {"none", 1}});
    REQUIRE(report.times.size() == 5);
    CHECK(report.times[0].name == "conv");
    CHECK(report.times[0].delegated);
    CHECK(report.times[0].device == "ane");
    CHECK(report.times[0].runs == 0);
    CHECK(report.times[4].index == 4);
    CHECK_FALSE(report.times[4].delegated);
    CHECK_FALSE(report.partitions);
    CHECK(report.reason != "");
}
