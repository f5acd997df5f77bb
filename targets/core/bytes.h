// A read-only view of bytes, a whole-file read with a size limit, and files that appear whole or
// not at all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace edgevit {

using Bytes = std::vector<std::uint8_t>;

struct ByteView {
    const std::uint8_t* data = nullptr;
    std::size_t size = 0;

    ByteView() = default;
    ByteView(const std::uint8_t* bytes, std::size_t count) : data(bytes), size(count) {}
    ByteView(const Bytes& bytes)  // NOLINT: a vector is meant to convert
        : data(bytes.data()), size(bytes.size()) {}
};

struct FileCloser {
    void operator()(std::FILE* file) const noexcept { std::fclose(file); }
};
using File = std::unique_ptr<std::FILE, FileCloser>;

// Opens for reading. Raises InputError naming the file and the system's reason.
File open_for_reading(const std::filesystem::path& path);

// The whole file. Raises InputError when it is missing, unreadable or over `limit_bytes`.
Bytes read_file(const std::filesystem::path& path, std::uint64_t limit_bytes);

// Writes beside `path` under a temporary name; commit() renames it into place. Without commit()
// the temporary file is removed, so a failed run leaves nothing half-written behind.
class AtomicFile {
  public:
    // What the process of that id calls the file while it writes it.
    static std::filesystem::path temporary_name(std::filesystem::path path, std::int64_t process);

    // Raises InputError when the folder is missing or not writable.
    explicit AtomicFile(std::filesystem::path path);
    AtomicFile(const AtomicFile&) = delete;
    AtomicFile& operator=(const AtomicFile&) = delete;
    ~AtomicFile();

    void write(const void* data, std::size_t size_bytes);
    // Writes over bytes written before; the next write() goes to the end again.
    void overwrite(long offset_bytes, const void* data, std::size_t size_bytes);
    void commit();

  private:
    std::filesystem::path path_;
    std::filesystem::path temporary_;
    File file_;
};

}  // namespace edgevit
