#include "machine.h"

#include <sys/utsname.h>
#include <unistd.h>

#include <cstdlib>
#include <ctime>
#include <fstream>

namespace edgevit {
namespace {

// The text behind `key` and `separator` in the first line that starts with the key.
std::optional<std::string> value_in(const std::string& path, const std::string& key,
                                    char separator) {
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);) {
        const std::size_t at = line.find(separator);
        if (line.compare(0, key.size(), key) == 0 && at != std::string::npos) {
            const std::size_t start = line.find_first_not_of(" \t\"", at + 1);
            const std::size_t end = line.find_last_not_of(" \t\"");
            return start == std::string::npos || end < start ? ""
                                                             : line.substr(start, end - start + 1);
        }
    }
    return std::nullopt;
}

std::optional<std::string> first_line(const std::string& path) {
    std::ifstream file(path);
    std::string line;
    if (!std::getline(file, line) || line.empty()) {
        return std::nullopt;
    }
    return line.substr(0, line.find('\0'));
}

std::string cpu_name() {
    if (auto name = value_in("/proc/cpuinfo", "model name", ':')) {
        return *name;
    }
    // ARM kernels print no model name: the board's name, else the core's numbers.
    if (auto board = first_line("/proc/device-tree/model")) {
        return *board;
    }
    const auto implementer = value_in("/proc/cpuinfo", "CPU implementer", ':');
    const auto part = value_in("/proc/cpuinfo", "CPU part", ':');
    return implementer && part ? "implementer " + *implementer + " part " + *part : "unknown";
}

}  // namespace

Machine describe_machine() {
    Machine machine;
    machine.cpu = cpu_name();
    machine.cores = sysconf(_SC_NPROCESSORS_ONLN);
    machine.os = value_in("/etc/os-release", "PRETTY_NAME", '=').value_or("unknown");
    utsname names{};
    if (uname(&names) == 0) {
        machine.architecture = names.machine;
        machine.kernel = std::string(names.sysname) + " " + names.release;
    }
    machine.governor = first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
    std::array<double, 3> loads{};
    if (getloadavg(loads.data(), 3) == 3) {
        machine.load_averages = loads;
    }
    return machine;
}

std::optional<std::int64_t> peak_memory_bytes() {
    const auto text = value_in("/proc/self/status", "VmHWM", ':');
    if (!text) {
        return std::nullopt;
    }
    return std::strtoll(text->c_str(), nullptr, 10) * 1024;
}

std::string utc_now() {
    const std::time_t now = std::time(nullptr);
    std::tm parts{};
    gmtime_r(&now, &parts);
    std::array<char, 32> text{};
    std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &parts);
    return text.data();
}

}  // namespace edgevit
