#include "machine.h"

#ifdef _WIN32
#include <windows.h>
#else
#include <sys/utsname.h>
#include <unistd.h>
#endif

#include <cstdlib>
#include <ctime>
#include <fstream>
#include <sstream>

#include "core/platform.h"

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

// Empty where the system keeps none. getloadavg() is missing before Android 10, which has the file.
std::optional<std::array<double, 3>> load_averages() {
#if defined(_WIN32)
    return std::nullopt;
#else
    std::array<double, 3> loads{};
#if defined(__ANDROID__)
    std::istringstream text(first_line("/proc/loadavg").value_or(""));
    const bool is_known = static_cast<bool>(text >> loads[0] >> loads[1] >> loads[2]);
#else
    const bool is_known = getloadavg(loads.data(), 3) == 3;
#endif
    return is_known ? std::optional(loads) : std::nullopt;
#endif
}

void describe_system(Machine& machine) {
#ifdef _WIN32
    SYSTEM_INFO info;
    GetNativeSystemInfo(&info);
    machine.cores = info.dwNumberOfProcessors;
    const bool is_arm = info.wProcessorArchitecture == PROCESSOR_ARCHITECTURE_ARM64;
    machine.architecture = is_arm ? "aarch64" : "x86_64";
    machine.kernel = machine.os = "Windows";
#else
    machine.cores = sysconf(_SC_NPROCESSORS_ONLN);
    machine.os = value_in("/etc/os-release", "PRETTY_NAME", '=').value_or("unknown");
    utsname names{};
    if (uname(&names) == 0) {
        machine.architecture = names.machine;
        machine.kernel = std::string(names.sysname) + " " + names.release;
    }
#endif
}

}  // namespace

Machine describe_machine() {
    Machine machine;
    machine.cpu = cpu_name();
    describe_system(machine);
    machine.governor = first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
    machine.load_averages = load_averages();
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
    const std::tm parts = utc_parts(now);
    std::array<char, 32> text{};
    std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &parts);
    return text.data();
}

}  // namespace edgevit
