#include "layer_report.h"

#include <doctest/doctest.h>

#include "support.h"

using namespace edgevit;
using namespace edgevit::test;
using edgevit::tensorrt::precision_of;
using edgevit::tensorrt::report_layers;

namespace {

json layer(const std::string& name, const std::string& type, const std::string& key,
           const std::vector<std::string>& formats) {
    json inputs = json::array();
    for (const std::string& format : formats) {
        inputs.push_back({{"Name", "x"}, {key, format}});
    }
    return {{"Name", name}, {"LayerType", type}, {"Inputs", inputs}, {"Outputs", json::array()}};
}

}  // namespace

TEST_CASE("a format names its type, in every wording there is") {
    CHECK(precision_of("Int8") == "int8");
    CHECK(precision_of("Thirty-two wide channel vectorized row major Int8 format.") == "int8");
    CHECK(precision_of("Half") == "float16");
    CHECK(precision_of("Row major linear FP16 format") == "float16");
    CHECK(precision_of("Channel major FP16 format where channel % 4 == 0") == "float16");
    CHECK(precision_of("Float") == "float32");
    CHECK(precision_of("Row major linear FP32 format (kLINEAR)") == "float32");
    for (const char* other : {"", "UInt8", "BFloat16", "BF16", "FP8", "Float8", "FP4", "Int32",
                              "Bool", "N/A due to dynamic shapes"}) {
        CAPTURE(other);
        CHECK(precision_of(other) == "other");
    }
}

TEST_CASE("layers are counted by the narrowest type they read; both inspectors are understood") {
    for (const char* key : {"Format/Datatype", "DataType", "Datatype"}) {
        const json document = {
            {"Layers",
             {layer("conv + add", "CaskConvolution", key, {"Half", "Int8"}),
              layer("gelu", "kgen", key, {"Half"}), layer("quantize", "Reformat", key, {"Float"}),
              layer("constant", "Constant", key, {})}}};
        const OpReport report = report_layers(document.dump(), {{"gelu", 10.6}}, 4);
        CHECK(report.total == 4);
        CHECK(report.delegated == 4);
        CHECK(report.partitions == 1);
        CHECK(report.not_delegated.empty());
        CHECK(report.reason.empty());
        CHECK(report.devices == std::map<std::string, std::int64_t>{{"gpu", 4}});
        CHECK(report.precisions == std::map<std::string, std::int64_t>{
                                       {"int8", 1}, {"float16", 1}, {"float32", 1}, {"other", 1}});
        REQUIRE(report.times.size() == 4);
        CHECK(report.times[0].name == "conv + add");
        CHECK(report.times[0].type == "CaskConvolution");
        CHECK(report.times[0].precision == "int8");
        CHECK(report.times[0].runs == 0);
        CHECK(report.times[1].runs == 4);
        CHECK(report.times[1].total_us == 11);
        CHECK(report.times[3].index == 3);
    }
}

TEST_CASE("what is no detailed list of layers is refused") {
    for (const char* text : {"", "{", "[]", "{}", R"({"Layers": 3})", R"({"Layers": ["conv"]})"}) {
        CAPTURE(text);
        CHECK(contains(message_of<Error>([&] { report_layers(text, {}, 1); }),
                       "TensorRT's engine inspector gave"));
    }
    CHECK(report_layers(R"({"Layers": [{"Inputs": [3, {"DataType": 7}]}]})", {}, 1).total == 1);
    CHECK(report_layers(R"({"Layers": []})", {}, 1).total == 0);
}
