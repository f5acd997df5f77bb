#include "mapped_file.h"

#ifndef _WIN32
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

#include <cerrno>
#include <cstring>
#include <limits>
#include <string>

#include "core/errors.h"

namespace edgevit {

#ifdef _WIN32

namespace {
constexpr std::uint64_t kMaxBytes = 2ULL << 30;
}

MappedFile::MappedFile(const std::filesystem::path& path) : copy_(read_file(path, kMaxBytes)) {
    bytes_ = copy_;
    if (bytes_.size == 0) {
        throw InputError(path.string() + ": is empty");
    }
}

MappedFile::MappedFile(int, std::uint64_t, std::uint64_t) {
    throw InputError("a descriptor cannot be opened in Windows: name a folder or give the bytes");
}

MappedFile::~MappedFile() = default;

#else

namespace {

// Closes what open() gave.
class Descriptor {
  public:
    explicit Descriptor(const std::filesystem::path& path)
        : number_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
        if (number_ < 0) {
            throw InputError(path.string() + ": cannot open: " + std::strerror(errno));
        }
    }
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    ~Descriptor() { ::close(number_); }
    int number() const { return number_; }

  private:
    int number_;
};

std::uint64_t size_of(int descriptor) {
    struct stat facts {};
    if (::fstat(descriptor, &facts) != 0) {
        throw InputError(std::string("the file cannot be used: ") + std::strerror(errno));
    }
    if (!S_ISREG(facts.st_mode)) {
        throw InputError("is no regular file");
    }
    return static_cast<std::uint64_t>(facts.st_size);
}

}  // namespace

MappedFile::MappedFile(const std::filesystem::path& path) {
    const Descriptor file(path);
    try {
        const std::uint64_t size = size_of(file.number());
        if (size == 0) {
            throw InputError("is empty");
        }
        map(file.number(), 0, size);
    } catch (const InputError& error) { throw InputError(path.string() + ": " + error.what()); }
}

MappedFile::MappedFile(int descriptor, std::uint64_t offset, std::uint64_t length) {
    map(descriptor, offset, length);
}

void MappedFile::map(int descriptor, std::uint64_t offset, std::uint64_t length) {
    const std::uint64_t size = size_of(descriptor);
    if (length == 0 || offset > size || length > size - offset ||
        length > std::numeric_limits<std::size_t>::max() / 2) {
        throw InputError("bytes " + std::to_string(offset) + " to " + std::to_string(offset) +
                         " + " + std::to_string(length) + " of a file of " + std::to_string(size) +
                         " cannot be read: they must be one or more, and lie in it");
    }
    const std::uint64_t before = offset % static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
    mapped_bytes_ = static_cast<std::size_t>(before + length);
    void* memory = ::mmap(nullptr, mapped_bytes_, PROT_READ, MAP_PRIVATE, descriptor,
                          static_cast<off_t>(offset - before));
    if (memory == MAP_FAILED) {
        throw InputError(std::string("the file cannot be mapped: ") + std::strerror(errno));
    }
    memory_ = memory;
    bytes_ = {static_cast<const std::uint8_t*>(memory_) + before, static_cast<std::size_t>(length)};
}

MappedFile::~MappedFile() {
    if (memory_ != nullptr) {
        ::munmap(memory_, mapped_bytes_);
    }
}

#endif

}  // namespace edgevit
