// A runtime's shared library, loaded while the program runs.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

namespace edgevit {

// dlopen()s the library, which stays loaded until the program ends: its worker threads may outlive
// any session. A bare name ("libLiteRt.so") is left to the system's loader, which knows the
// library folders of an Android app; anything with a '/' is a file. `runtime` and `how_to_get` go
// into the messages. Raises ToolMissing when it is not named, not there or cannot be loaded.
void* load_shared_library(const std::filesystem::path& path, const std::string& runtime,
                          const std::string& how_to_get);

// The function of that name in a library that load_shared_library() returned; null where it has
// none.
void* find_function(void* library, const char* name);

// The file that a loaded function came from; empty where that is no file of its own, as in an APK.
std::optional<std::filesystem::path> file_of_function(const void* function);

}  // namespace edgevit
