// Temperatures and clock frequencies, where the kernel shows them in sysfs.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace edgevit {

// One value a zone or clock, in the order of Sensors; empty: it could not be read just then.
struct SensorReading {
    std::vector<std::optional<double>> temperatures_c;
    std::vector<std::optional<std::int64_t>> frequencies_khz;
};

// The thermal zones and cpufreq policies (cores that share a clock) of this machine, at most 64
// of each. None where the kernel shows none, as in most virtual machines, or off Linux.
class Sensors {
  public:
    explicit Sensors(const std::filesystem::path& sysfs = "/sys");

    const std::vector<std::string>& zones() const { return zones_; }    // such as "cpu-thermal"
    const std::vector<std::string>& clocks() const { return clocks_; }  // such as "policy0"

    SensorReading read() const;

  private:
    std::vector<std::string> zones_;
    std::vector<std::string> clocks_;
    std::vector<std::filesystem::path> zone_files_;
    std::vector<std::filesystem::path> clock_files_;
};

}  // namespace edgevit
