#include "layer_report.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/errors.h"

namespace edgevit::tensorrt {
namespace {

using nlohmann::json;

constexpr std::array<const char*, 4> kNarrowestFirst = {"int8", "float16", "float32", "other"};

bool has(const std::string& text, std::initializer_list<const char*> words) {
    return std::any_of(words.begin(), words.end(),
                       [&](const char* word) { return text.find(word) != std::string::npos; });
}

std::string text_at(const json& object, std::initializer_list<const char*> keys) {
    for (const char* key : keys) {
        const auto found = object.find(key);
        if (found != object.end() && found->is_string()) {
            return found->get<std::string>();
        }
    }
    return "";
}

std::string layer_precision(const json& layer) {
    const auto inputs = layer.find("Inputs");
    if (inputs == layer.end() || !inputs->is_array()) {
        return "other";
    }
    const auto rank = [](const std::string& precision) {
        return std::find(kNarrowestFirst.begin(), kNarrowestFirst.end(), precision);
    };
    std::string narrowest = "other";
    for (const json& tensor : *inputs) {
        if (!tensor.is_object()) {
            continue;
        }
        const std::string precision =
            precision_of(text_at(tensor, {"Format/Datatype", "DataType", "Datatype"}));
        if (rank(precision) < rank(narrowest)) {
            narrowest = precision;
        }
    }
    return narrowest;
}

}  // namespace

std::string precision_of(const std::string& format) {
    std::string text = format;
    std::transform(text.begin(), text.end(), text.begin(),
                   [](unsigned char letter) { return static_cast<char>(std::tolower(letter)); });
    if (has(text, {"uint8", "bfloat16", "bf16", "float8", "fp8", "fp4", "float4"})) {
        return "other";
    }
    if (has(text, {"int8"})) {
        return "int8";
    }
    if (has(text, {"half", "fp16", "float16"})) {
        return "float16";
    }
    return has(text, {"float", "fp32"}) ? "float32" : "other";
}

OpReport report_layers(const std::string& inspector_json, const LayerTimes& times, int runs) try {
    const json document = json::parse(inspector_json);
    if (!document.is_object() || !document.contains("Layers") || !document["Layers"].is_array()) {
        throw Error("TensorRT's engine inspector gave no list of layers");
    }
    OpReport report;
    report.precisions.emplace();
    for (const json& layer : document["Layers"]) {
        if (!layer.is_object()) {
            throw Error("TensorRT's engine inspector gave names only: the plan lacks details");
        }
        OpTime& op = report.times.emplace_back();
        op.name = text_at(layer, {"Name"});
        op.type = text_at(layer, {"LayerType"});
        op.precision = layer_precision(layer);
        op.delegated = true;
        op.device = "gpu";
        op.index = static_cast<std::int64_t>(report.times.size()) - 1;
        if (const auto time = times.find(op.name); time != times.end()) {
            op.runs = runs;
            op.total_us = std::llround(time->second);
        }
        ++(*report.precisions)[*op.precision];
    }
    const auto total = static_cast<std::int64_t>(report.times.size());
    report.total = report.delegated = total;
    report.partitions = total > 0 ? 1 : 0;
    report.devices.emplace();
    if (total > 0) {
        report.devices->emplace("gpu", total);
    }
    return report;
} catch (const json::exception& error) {
    throw Error(std::string("TensorRT's engine inspector gave no valid JSON: ") + error.what());
}

}  // namespace edgevit::tensorrt
