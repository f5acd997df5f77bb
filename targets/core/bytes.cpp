#include "core/bytes.h"

#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include "core/errors.h"
#include "core/platform.h"

namespace edgevit {
namespace {

std::string system_reason() { return std::strerror(errno); }

}  // namespace

File open_for_reading(const std::filesystem::path& path) {
    if (std::error_code ignored; std::filesystem::is_directory(path, ignored)) {
        throw InputError(path.string() + ": is a folder, a file is needed");
    }
    File file(open_stream(path, "rb"));
    if (!file) {
        throw InputError(path.string() + ": cannot open: " + system_reason());
    }
    return file;
}

Bytes read_file(const std::filesystem::path& path, std::uint64_t limit_bytes) {
    const File file = open_for_reading(path);
    std::error_code error;
    const std::uintmax_t size = std::filesystem::file_size(path, error);
    if (error) {
        throw InputError(path.string() + ": cannot read its size: " + error.message());
    }
    if (size > limit_bytes) {
        throw InputError(path.string() + ": has " + std::to_string(size) +
                         " bytes, over the limit of " + std::to_string(limit_bytes));
    }
    Bytes bytes(static_cast<std::size_t>(size));
    if (std::fread(bytes.data(), 1, bytes.size(), file.get()) != bytes.size()) {
        throw InputError(path.string() + ": ended before its " + std::to_string(size) + " bytes");
    }
    return bytes;
}

std::filesystem::path AtomicFile::temporary_name(std::filesystem::path path, std::int64_t process) {
    return path += ".tmp" + std::to_string(process);
}

AtomicFile::AtomicFile(std::filesystem::path path)
    : path_(std::move(path)), temporary_(temporary_name(path_, process_id())) {
    if (std::error_code ignored; std::filesystem::is_directory(path_, ignored)) {
        throw InputError(path_.string() + ": is a folder, name a file to write");
    }
    file_.reset(open_stream(temporary_, "wb"));
    if (!file_) {
        throw InputError(path_.string() + ": cannot write: " + system_reason());
    }
}

AtomicFile::~AtomicFile() {
    if (file_) {
        file_.reset();
        std::error_code ignored;
        std::filesystem::remove(temporary_, ignored);
    }
}

void AtomicFile::write(const void* data, std::size_t size_bytes) {
    if (std::fwrite(data, 1, size_bytes, file_.get()) != size_bytes) {
        throw Error(path_.string() + ": cannot write: " + system_reason());
    }
}

void AtomicFile::overwrite(long offset_bytes, const void* data, std::size_t size_bytes) {
    const bool is_there = std::fseek(file_.get(), offset_bytes, SEEK_SET) == 0;
    if (is_there) {
        write(data, size_bytes);
    }
    if (!is_there || std::fseek(file_.get(), 0, SEEK_END) != 0) {
        throw Error(path_.string() + ": cannot write: " + system_reason());
    }
}

void AtomicFile::commit() {
    if (std::fflush(file_.get()) != 0) {
        throw Error(path_.string() + ": cannot write: " + system_reason());
    }
    std::filesystem::rename(temporary_, path_);
    file_.reset();
}

}  // namespace edgevit
