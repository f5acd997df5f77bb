// Which images a folder or a tar holds, and which files of it are left out: the rules of
// edgevit/data/listing.py.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace edgevit {

struct FoundImage {
    std::string raw;   // its path in the set, as it is on disk
    std::string file;  // to open; empty in a tar
    std::uint64_t offset_bytes = 0;
    std::uint64_t size_bytes = 0;
};

struct Listing {
    std::vector<FoundImage> images;                             // unordered
    std::vector<std::pair<std::string, std::string>> left_out;  // path in the set, why
};

// Links are followed, in a tar inside it; nothing but a regular file is opened. Raises InputError
// when `path` is missing, no folder or tar, or holds a folder that cannot be listed.
Listing list_set(const std::filesystem::path& path);

// One sentence that counts and names what is left out; empty where nothing is.
std::string left_out_line(const Listing& listing, const std::string& title);

}  // namespace edgevit
