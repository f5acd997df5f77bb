// A file's bytes, or a part of them, read as they are needed: what the system maps is no copy.
#pragma once

#include <cstdint>
#include <filesystem>

#include "core/bytes.h"

namespace edgevit {

class MappedFile {
  public:
    // The whole file. Raises InputError naming it when it cannot be read or is empty.
    explicit MappedFile(const std::filesystem::path& path);

    // `length` bytes of an open file from `offset` on, as of an asset in an APK. The descriptor
    // stays the caller's and may be closed afterwards. Raises InputError when the part does not
    // lie in the file.
    MappedFile(int descriptor, std::uint64_t offset, std::uint64_t length);

    MappedFile(const MappedFile&) = delete;
    MappedFile& operator=(const MappedFile&) = delete;
    ~MappedFile();

    ByteView bytes() const { return bytes_; }

  private:
    void map(int descriptor, std::uint64_t offset, std::uint64_t length);

    void* memory_ = nullptr;  // what was mapped: begins at a page
    std::size_t mapped_bytes_ = 0;
    Bytes copy_;  // where the system maps no files
    ByteView bytes_;
};

}  // namespace edgevit
