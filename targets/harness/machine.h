// The machine a result was obtained on. No name, address or path that would identify its owner.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>

namespace edgevit {

struct Machine {
    std::string cpu;
    std::string architecture;
    std::int64_t cores = 0;  // online
    std::string os;
    std::string kernel;
    std::optional<std::string> governor;  // of the first core, where the kernel shows one
    std::optional<std::array<double, 3>> load_averages;  // over 1, 5 and 15 minutes, now
};

Machine describe_machine();

// The most memory this process has held so far, resident, in bytes (VmHWM); empty off Linux.
std::optional<std::int64_t> peak_memory_bytes();

// The time now as "2025-01-31T12:00:00Z".
std::string utc_now();

}  // namespace edgevit
