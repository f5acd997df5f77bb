#include "profile_report.h"

#include <map>
#include <nlohmann/json.hpp>

#include "core/errors.h"
#include "core/json_reader.h"

namespace edgevit::onnxruntime {
namespace {

using nlohmann::json;

constexpr const char* kSuffix = "_kernel_time";
constexpr const char* kWhere = "ONNX Runtime's profile";
constexpr std::int64_t kMaxEventUs = 3'600'000'000;  // an hour

// The node's name where the event is the time of a node's kernel, else nothing.
std::optional<std::string> node_of(const json& event) {
    if (!event.is_object() || event.value("cat", json()) != "Node") {
        return std::nullopt;
    }
    const std::string name = JsonReader(event, kWhere).text("name");
    const std::string suffix = kSuffix;
    if (name.size() <= suffix.size() ||
        name.compare(name.size() - suffix.size(), suffix.size(), suffix) != 0) {
        return std::nullopt;
    }
    return name.substr(0, name.size() - suffix.size());
}

std::vector<OpTime> node_times(const json& events) {
    std::vector<OpTime> times;
    std::map<std::string, std::size_t> places;  // node index and name -> place in `times`
    for (const json& event : events) {
        const std::optional<std::string> node = node_of(event);
        if (!node) {
            continue;
        }
        const JsonReader reader(event, kWhere);
        const JsonReader arguments = reader.object("args");
        const std::int64_t duration_us = reader.integer("dur", 0, kMaxEventUs);
        const auto [place, is_new] =
            places.emplace(arguments.text("node_index") + " " + *node, times.size());
        if (is_new) {
            OpTime& op = times.emplace_back();
            op.name = *node;
            op.type = arguments.text("op_name");
            op.index = static_cast<std::int64_t>(place->second);
            continue;
        }
        OpTime& op = times[place->second];
        op.runs += 1;
        op.total_us += duration_us;
    }
    return times;
}

}  // namespace

OpReport report_profile(const std::string& text, int runs) try {
    const json events = json::parse(text);
    if (!events.is_array()) {
        throw Error(std::string(kWhere) + " is not an array of events");
    }
    OpReport report;
    report.times = node_times(events);
    for (const OpTime& op : report.times) {
        if (op.runs != runs) {
            throw Error(std::string(kWhere) + ": " + op.name + " ran " + std::to_string(op.runs) +
                        " times after the warm-up, expected " + std::to_string(runs));
        }
    }
    if (report.times.empty()) {
        report.reason = "ONNX Runtime's profile lists no nodes";
        return report;
    }
    report.total = static_cast<std::int64_t>(report.times.size());
    report.reason = "ONNX Runtime's CPU provider runs every op itself";
    return report;
} catch (const InputError& error) {
    throw Error(error.what());  // the runtime wrote it, not the user
} catch (const json::exception& error) {
    throw Error(std::string(kWhere) + " is not valid JSON: " + error.what());
}

}  // namespace edgevit::onnxruntime
