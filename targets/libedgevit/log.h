// What an application may want in its log.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace edgevit {

// The numbers are those of the C API.
enum class LogLevel : std::int32_t { info, warning };

using Log = std::function<void(LogLevel level, const std::string& message)>;

}  // namespace edgevit
