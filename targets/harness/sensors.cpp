#include "sensors.h"

#include <charconv>
#include <fstream>
#include <map>

namespace edgevit {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMaxSensors = 64;
constexpr std::size_t kMaxTextBytes = 64;

std::string first_word(const fs::path& path) {
    std::ifstream file(path);
    std::string word;
    file >> word;
    return word.substr(0, kMaxTextBytes);
}

std::optional<std::int64_t> integer_in(const fs::path& path) {
    const std::string word = first_word(path);
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
    if (error != std::errc() || end != word.data() + word.size()) {
        return std::nullopt;
    }
    return value;
}

// The folders PREFIX<number> in `parent`, by number.
std::map<std::int64_t, fs::path> numbered(const fs::path& parent, const std::string& prefix) {
    std::map<std::int64_t, fs::path> found;
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(parent, ignored)) {
        const std::string name = entry.path().filename().string();
        std::int64_t number = 0;
        if (name.compare(0, prefix.size(), prefix) != 0 || found.size() == kMaxSensors) {
            continue;
        }
        const char* last = name.data() + name.size();
        const auto [end, error] = std::from_chars(name.data() + prefix.size(), last, number);
        if (error == std::errc() && end == last) {
            found.emplace(number, entry.path());
        }
    }
    return found;
}

}  // namespace

Sensors::Sensors(const fs::path& sysfs) {
    for (const auto& [number, folder] : numbered(sysfs / "class" / "thermal", "thermal_zone")) {
        const std::string type = first_word(folder / "type");
        zones_.push_back(type.empty() ? "zone" + std::to_string(number) : type);
        zone_files_.push_back(folder / "temp");
    }
    const fs::path cpufreq = sysfs / "devices" / "system" / "cpu" / "cpufreq";
    for (const auto& [number, folder] : numbered(cpufreq, "policy")) {
        clocks_.push_back("policy" + std::to_string(number));
        clock_files_.push_back(folder / "scaling_cur_freq");
    }
}

SensorReading Sensors::read() const {
    SensorReading reading;
    for (const fs::path& file : zone_files_) {
        const std::optional<std::int64_t> millidegrees = integer_in(file);
        reading.temperatures_c.push_back(
            millidegrees ? std::optional(static_cast<double>(*millidegrees) / 1000) : std::nullopt);
    }
    for (const fs::path& file : clock_files_) {
        reading.frequencies_khz.push_back(integer_in(file));
    }
    return reading;
}

}  // namespace edgevit
