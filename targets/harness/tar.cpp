#include "tar.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <numeric>
#include <optional>
#include <string_view>

#include "core/bytes.h"
#include "core/errors.h"

namespace edgevit {
namespace {

constexpr std::uint64_t kBlock = 512;
constexpr std::uint64_t kMaxExtensionBytes = 1 << 20;  // a long name or a pax header
using Header = std::array<std::uint8_t, kBlock>;

// A field of the header up to its first NUL.
std::string_view field(const Header& header, std::size_t offset, std::size_t size) {
    const std::string_view text(reinterpret_cast<const char*>(header.data()) + offset, size);
    return text.substr(0, text.find('\0'));
}

// Octal digits with blanks around, or GNU's base-256 form for sizes of 8 GiB and more.
std::optional<std::uint64_t> number(const Header& header, std::size_t offset, std::size_t size) {
    if ((header[offset] & 0x80) != 0) {
        std::uint64_t value = header[offset] & 0x7f;
        for (std::size_t i = 1; i < size; ++i) {
            if (value >> 55 != 0) {
                return std::nullopt;
            }
            value = value << 8 | header[offset + i];
        }
        return value;
    }
    std::string_view text = field(header, offset, size);
    text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
    text = text.substr(0, text.find(' '));
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 8);
    if (error != std::errc() || end != text.data() + text.size()) {
        return std::nullopt;
    }
    return value;
}

bool checksum_holds(const Header& header) {
    const auto stored = number(header, 148, 8);
    std::uint64_t sum = std::accumulate(header.begin(), header.end(), std::uint64_t{0});
    for (std::size_t i = 148; i < 156; ++i) {
        sum = sum - header[i] + ' ';  // the field itself counts as blanks
    }
    return stored == sum;
}

std::string full_name(const Header& header) {
    std::string name(field(header, 0, 100));
    const bool is_ustar = field(header, 257, 5) == "ustar" && header[262] == 0;
    if (const std::string_view prefix = field(header, 345, 155); is_ustar && !prefix.empty()) {
        name = std::string(prefix) + "/" + name;
    }
    return name;
}

class TarIndexer {
  public:
    explicit TarIndexer(const std::filesystem::path& path)
        : path_(path), file_(open_for_reading(path)),
          size_bytes_(std::filesystem::file_size(path)) {}

    std::vector<TarMember> run() {
        while (read_header()) {
            const char type = static_cast<char>(header_[156]);
            const std::uint64_t size = member_size();
            if (type == 'L' || type == 'x' || type == 'g') {
                read_extension(type, size);
            } else {
                if (type == '0' || type == '\0' || type == '7') {
                    members_.push_back({long_name_.value_or(full_name(header_)), at_, size});
                }
                long_name_.reset();
                long_size_.reset();
            }
            at_ += (size + kBlock - 1) / kBlock * kBlock;
        }
        return std::move(members_);
    }

  private:
    [[noreturn]] void fail(const std::string& what) const {
        throw InputError(path_.string() + ": not a readable, uncompressed tar: " + what +
                         " at byte " + std::to_string(at_));
    }

    void read_at(std::uint64_t offset, void* out, std::size_t count) {
        if (fseeko(file_.get(), static_cast<off_t>(offset), SEEK_SET) != 0 ||
            std::fread(out, 1, count, file_.get()) != count) {
            fail("it ends too early");
        }
    }

    // False at the end marker, a block of zeros. Leaves at_ behind the header.
    bool read_header() {
        if (at_ == size_bytes_ && at_ > 0) {
            fail("the end marker is missing: the archive was cut short");
        }
        read_at(at_, header_.data(), header_.size());
        if (std::all_of(header_.begin(), header_.end(), [](std::uint8_t b) { return b == 0; })) {
            return false;
        }
        if (!checksum_holds(header_)) {
            fail("bad header checksum");
        }
        at_ += kBlock;
        return true;
    }

    std::uint64_t member_size() const {
        const auto written = number(header_, 124, 12);
        if (!written) {
            fail("bad size field");
        }
        const char type = static_cast<char>(header_[156]);
        const bool is_extension = type == 'L' || type == 'K' || type == 'x' || type == 'g';
        const std::uint64_t size = is_extension ? *written : long_size_.value_or(*written);
        // Links and folders carry a size in some archives, but no data.
        const bool has_data = type < '1' || type > '6';
        if (has_data && size > size_bytes_ - at_) {
            fail("a member of " + std::to_string(size) + " bytes reaches past the end");
        }
        return has_data ? size : 0;
    }

    void read_extension(char type, std::uint64_t size) {
        if (size > kMaxExtensionBytes) {
            fail("an extended header of " + std::to_string(size) + " bytes");
        }
        std::string text(static_cast<std::size_t>(size), '\0');
        read_at(at_, text.data(), text.size());
        if (type == 'L') {
            long_name_ = text.substr(0, text.find('\0'));
        } else if (type == 'x') {
            read_pax(text);
        }  // 'g' sets defaults for all members: none of those matters here
    }

    // Records of the form "LENGTH key=value\n", LENGTH counting itself.
    void read_pax(std::string_view text) {
        while (!text.empty() && text.front() != '\0') {
            std::size_t length = 0;
            const auto [end, error] =
                std::from_chars(text.data(), text.data() + text.size(), length);
            const auto digits = static_cast<std::size_t>(end - text.data());
            if (error != std::errc() || length <= digits + 1 || length > text.size() ||
                text[digits] != ' ' || text[length - 1] != '\n') {
                fail("bad pax header");
            }
            const std::string_view record = text.substr(digits + 1, length - digits - 2);
            const std::size_t equals = record.find('=');
            if (equals == std::string_view::npos) {
                fail("bad pax header");
            }
            set_pax(record.substr(0, equals), record.substr(equals + 1));
            text.remove_prefix(length);
        }
    }

    void set_pax(std::string_view key, std::string_view value) {
        if (key == "path") {
            long_name_ = std::string(value);
        } else if (key == "size") {
            std::uint64_t size = 0;
            const auto [end, error] =
                std::from_chars(value.data(), value.data() + value.size(), size);
            if (error != std::errc() || end != value.data() + value.size()) {
                fail("bad pax size");
            }
            long_size_ = size;
        }
    }

    std::filesystem::path path_;
    File file_;
    std::uint64_t size_bytes_;
    std::uint64_t at_ = 0;
    Header header_ = {};
    std::optional<std::string> long_name_;
    std::optional<std::uint64_t> long_size_;
    std::vector<TarMember> members_;
};

}  // namespace

std::vector<TarMember> index_tar(const std::filesystem::path& path) {
    return TarIndexer(path).run();
}

}  // namespace edgevit
