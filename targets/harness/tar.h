// The index of an uncompressed tar as the tree that it unpacks to: ustar, with GNU long names and
// pax paths and sizes. edgevit/data/tar_index.py reads the same archives to the same trees.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>

namespace edgevit {

struct TarNode {
    enum class Kind { folder, file, link, other };

    Kind kind = Kind::folder;
    std::map<std::string, std::shared_ptr<TarNode>> members;  // of a folder
    std::uint64_t offset_bytes = 0;  // of a file's first byte in the archive
    std::uint64_t size_bytes = 0;
    std::string text;  // where a link leads, empty: nowhere; why another thing is not read
};

// Whether the file begins with a member's header, by its checksum.
bool begins_as_tar(const std::filesystem::path& path);

// The root folder; nothing but headers is read. Of two members with one name the later counts. A
// member whose name leads out of the archive stands in the root under its name with a "/" before.
// Raises InputError naming the archive and the offset for a bad checksum, a bad number, a member
// that reaches past the end of the file, or an archive without its end marker.
std::shared_ptr<TarNode> read_tar(const std::filesystem::path& path);

}  // namespace edgevit
