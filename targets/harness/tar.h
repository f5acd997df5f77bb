// The index of an uncompressed tar: ustar, with GNU long names and pax paths and sizes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace edgevit {

struct TarMember {
    std::string name;
    std::uint64_t offset_bytes = 0;  // of its first byte in the archive
    std::uint64_t size_bytes = 0;
};

// The regular files in archive order; nothing but headers is read. Raises InputError naming the
// archive and the offset for a bad checksum, a bad number, a member that reaches past the end of
// the file, or an archive without its end marker.
std::vector<TarMember> index_tar(const std::filesystem::path& path);

}  // namespace edgevit
