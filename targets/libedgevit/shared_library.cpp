#include "shared_library.h"

#ifdef _WIN32
#include <windows.h>
#else
#include <dlfcn.h>
#endif

#include "core/errors.h"

namespace edgevit {

namespace fs = std::filesystem;

namespace {

// Null where it cannot be loaded, with the reason in `reason`.
void* load(const fs::path& name, std::string& reason) {
#ifdef _WIN32
    void* library = LoadLibraryW(name.c_str());
    if (library == nullptr) {
        reason = "error " + std::to_string(GetLastError());
    }
#else
    void* library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (library == nullptr) {
        reason = dlerror();
    }
#endif
    return library;
}

}  // namespace

void* load_shared_library(const fs::path& path, const std::string& runtime,
                          const std::string& how_to_get) {
    if (path.empty()) {
        throw ToolMissing("the " + runtime + " library is not named: " + how_to_get);
    }
    const bool is_bare_name = !path.has_parent_path();
    if (!is_bare_name && !fs::is_regular_file(path)) {
        throw ToolMissing(path.string() + ": no such " + runtime + " library; " + how_to_get);
    }
    std::string reason;
    void* library = load(is_bare_name ? path : fs::absolute(path), reason);
    if (library == nullptr) {
        throw ToolMissing("cannot load " + runtime + ": " + reason + "; " + how_to_get);
    }
    return library;
}

void* find_function(void* library, const char* name) {
#ifdef _WIN32
    return reinterpret_cast<void*>(GetProcAddress(static_cast<HMODULE>(library), name));
#else
    return dlsym(library, name);
#endif
}

std::optional<fs::path> file_of_function(const void* function) {
#ifdef _WIN32
    HMODULE module = nullptr;
    wchar_t name[32768];
    constexpr DWORD kByAddress =
        GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT;
    if (!GetModuleHandleExW(kByAddress, static_cast<LPCWSTR>(function), &module) ||
        GetModuleFileNameW(module, name, std::size(name)) == 0) {
        return std::nullopt;
    }
    return fs::path(name);
#else
    Dl_info info;
    std::error_code error;
    if (dladdr(function, &info) == 0 || info.dli_fname == nullptr ||
        !fs::is_regular_file(info.dli_fname, error)) {
        return std::nullopt;
    }
    return info.dli_fname;
#endif
}

}  // namespace edgevit
