// What POSIX and Windows do differently, each behind one name.
#pragma once

#include <cstdint>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <string>

namespace edgevit {

// fopen() of a path: in Windows of its wide characters. Null with errno set where it fails.
std::FILE* open_stream(const std::filesystem::path& path, const char* mode);

std::int64_t process_id();

// Whether this process may make files in the folder.
bool is_writable_folder(const std::filesystem::path& folder);

// A new, empty folder of this process's own among the temporary ones, its name begun by `prefix`.
// Raises Error when none can be made.
std::filesystem::path make_temporary_folder(const std::string& prefix);

// The time in UTC, by the calendar.
std::tm utc_parts(std::time_t time);

}  // namespace edgevit
