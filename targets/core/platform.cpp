#include "core/platform.h"

#include "core/errors.h"

#ifdef _WIN32
#include <io.h>
#include <process.h>
#else
#include <stdlib.h>
#include <unistd.h>  // where Darwin declares mkdtemp
#endif

namespace edgevit {

namespace fs = std::filesystem;

#ifdef _WIN32

std::FILE* open_stream(const fs::path& path, const char* mode) {
    return _wfopen(path.c_str(), fs::path(mode).c_str());
}

std::int64_t process_id() { return _getpid(); }

bool is_writable_folder(const fs::path& folder) {
    constexpr int kMayWrite = 2;
    return _waccess(folder.c_str(), kMayWrite) == 0;
}

fs::path make_temporary_folder(const std::string& prefix) {
    const fs::path base = fs::temp_directory_path();
    for (int i = 0; i < 10'000; ++i) {
        const std::string name = prefix + std::to_string(process_id()) + "-" + std::to_string(i);
        if (fs::create_directory(base / name)) {
            return base / name;
        }
    }
    throw Error("cannot make a temporary folder in " + base.string());
}

std::tm utc_parts(std::time_t time) {
    std::tm parts{};
    gmtime_s(&parts, &time);
    return parts;
}

#else

std::FILE* open_stream(const fs::path& path, const char* mode) {
    return std::fopen(path.c_str(), mode);
}

std::int64_t process_id() { return ::getpid(); }

bool is_writable_folder(const fs::path& folder) {
    return ::access(folder.c_str(), W_OK | X_OK) == 0;
}

fs::path make_temporary_folder(const std::string& prefix) {
    const fs::path base = fs::temp_directory_path();
    std::string name = (base / (prefix + "XXXXXX")).string();
    if (::mkdtemp(name.data()) == nullptr) {
        throw Error("cannot make a temporary folder in " + base.string());
    }
    return name;
}

std::tm utc_parts(std::time_t time) {
    std::tm parts{};
    gmtime_r(&time, &parts);
    return parts;
}

#endif

}  // namespace edgevit
