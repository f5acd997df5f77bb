#include "shared_library.h"

#include <dlfcn.h>

#include "core/errors.h"

namespace edgevit {

namespace fs = std::filesystem;

void* load_shared_library(const fs::path& path, const std::string& runtime,
                          const std::string& how_to_get) {
    if (path.empty()) {
        throw ToolMissing("the " + runtime + " library is not named: " + how_to_get);
    }
    const bool is_bare_name = !path.has_parent_path();
    if (!is_bare_name && !fs::is_regular_file(path)) {
        throw ToolMissing(path.string() + ": no such " + runtime + " library; " + how_to_get);
    }
    const fs::path name = is_bare_name ? path : fs::absolute(path);
    void* library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (library == nullptr) {
        throw ToolMissing("cannot load " + runtime + ": " + dlerror() + "; " + how_to_get);
    }
    return library;
}

std::optional<fs::path> file_of_function(const void* function) {
    Dl_info info;
    std::error_code error;
    if (dladdr(function, &info) == 0 || info.dli_fname == nullptr ||
        !fs::is_regular_file(info.dli_fname, error)) {
        return std::nullopt;
    }
    return info.dli_fname;
}

}  // namespace edgevit
