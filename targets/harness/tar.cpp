#include "tar.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <numeric>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "core/bytes.h"
#include "core/errors.h"
#include "kinds.h"

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
    if (text.empty()) {
        return value;
    }
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

using Parts = std::vector<std::string>;

// Without empty ones and ".", as Python's PurePosixPath has them.
Parts parts_of(const std::string& name) {
    Parts parts;
    for (std::size_t start = 0; start <= name.size();) {
        const std::size_t end = std::min(name.find('/', start), name.size());
        std::string part = name.substr(start, end - start);
        if (!part.empty() && part != ".") {
            parts.push_back(std::move(part));
        }
        start = end + 1;
    }
    return parts;
}

bool is_regular(char type) { return type == '0' || type == '\0' || type == '7'; }

std::shared_ptr<TarNode> node_of(TarNode::Kind kind, std::string text = "") {
    auto node = std::make_shared<TarNode>();
    node->kind = kind;
    node->text = std::move(text);
    return node;
}

class TarIndexer {
  public:
    explicit TarIndexer(const std::filesystem::path& path)
        : path_(path), file_(open_for_reading(path)),
          size_bytes_(std::filesystem::file_size(path)) {}

    std::shared_ptr<TarNode> run() {
        while (read_header()) {
            const char type = static_cast<char>(header_[156]);
            const std::uint64_t size = member_size();
            if (type == 'L' || type == 'K' || type == 'x' || type == 'g') {
                read_extension(type, size);
            } else {
                if (type == 'S') {
                    skip_sparse_map();
                }
                add(type, size);
                told_ = {};
            }
            at_ += (size + kBlock - 1) / kBlock * kBlock;
        }
        return root_;
    }

  private:
    // What extended headers say of the member that follows them.
    struct Told {
        std::optional<std::string> name;
        std::optional<std::string> link;
        std::optional<std::uint64_t> size;
        bool is_sparse = false;
    };

    [[noreturn]] void fail(const std::string& what) const {
        throw InputError(printable(path_.string()) + ": not a readable, uncompressed tar: " + what +
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
        const std::uint64_t size = is_extension ? *written : told_.size.value_or(*written);
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
            told_.name = text.substr(0, text.find('\0'));
        } else if (type == 'K') {
            told_.link = text.substr(0, text.find('\0'));
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
        const bool is_name = key == "path" || key == "GNU.sparse.name";
        if ((is_name || key == "linkpath") && value.find('\0') != std::string_view::npos) {
            fail("bad pax header");
        }
        if (is_name) {
            told_.name = std::string(value);
        } else if (key == "linkpath") {
            told_.link = std::string(value);
        } else if (key == "size") {
            std::uint64_t size = 0;
            const auto [end, error] =
                std::from_chars(value.data(), value.data() + value.size(), size);
            if (error != std::errc() || end != value.data() + value.size() || value.size() > 18) {
                fail("bad pax size");
            }
            told_.size = size;
        }
        told_.is_sparse = told_.is_sparse || key.substr(0, 11) == "GNU.sparse.";
    }

    // GNU's old sparse files: more of the map follows the header while a byte says so.
    void skip_sparse_map() {
        for (std::size_t place = 482; header_[place] != 0; place = 504) {
            read_at(at_, header_.data(), header_.size());
            at_ += kBlock;
        }
    }

    void add(char type, std::uint64_t size) {
        const std::string name = told_.name.value_or(full_name(header_));
        const Parts parts = parts_of(name);
        if (parts.empty()) {
            return;
        }
        if (std::find(parts.begin(), parts.end(), "..") != parts.end()) {
            root_->members["/" + name] =
                node_of(TarNode::Kind::other, "name that leads out of the tar");
            return;
        }
        const std::string target = told_.link.value_or(std::string(field(header_, 157, 100)));
        if (type == '5' || (is_regular(type) && name.back() == '/')) {
            put(parts, node_of(TarNode::Kind::folder));
        } else if (type == 'S' || (is_regular(type) && told_.is_sparse)) {
            put(parts, node_of(TarNode::Kind::other, "sparse file in a tar"));
        } else if (is_regular(type)) {
            auto node = node_of(TarNode::Kind::file);
            node->offset_bytes = at_;
            node->size_bytes = size;
            put(parts, std::move(node));
        } else if (type == '1') {
            put(parts, linked(target));
        } else if (type == '2') {
            put(parts, node_of(TarNode::Kind::link, target));
        } else if (type == '3' || type == '4' || type == '6') {
            put(parts, node_of(TarNode::Kind::other, "special file"));
        }
    }

    // What a hard link shares with a member before it.
    std::shared_ptr<TarNode> linked(const std::string& target) const {
        std::shared_ptr<TarNode> node = root_;
        for (const std::string& part : parts_of(target)) {
            const auto found = node->members.find(part);
            if (found == node->members.end()) {
                return node_of(TarNode::Kind::link);
            }
            node = found->second;
        }
        return node->kind == TarNode::Kind::folder ? node_of(TarNode::Kind::link) : node;
    }

    void put(const Parts& parts, std::shared_ptr<TarNode> node) {
        TarNode* folder = root_.get();
        for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
            std::shared_ptr<TarNode>& inner = folder->members[parts[i]];
            if (inner == nullptr || inner->kind != TarNode::Kind::folder) {
                inner = node_of(TarNode::Kind::folder);
            }
            folder = inner.get();
        }
        std::shared_ptr<TarNode>& place = folder->members[parts.back()];
        const bool is_there = place != nullptr && place->kind == TarNode::Kind::folder;
        if (!is_there || node->kind != TarNode::Kind::folder) {
            place = std::move(node);
        }
    }

    std::filesystem::path path_;
    File file_;
    std::uint64_t size_bytes_;
    std::uint64_t at_ = 0;
    Header header_ = {};
    Told told_;
    std::shared_ptr<TarNode> root_ = node_of(TarNode::Kind::folder);
};

}  // namespace

bool begins_as_tar(const std::filesystem::path& path) {
    const File file = open_for_reading(path);
    Header header = {};
    return std::fread(header.data(), 1, header.size(), file.get()) == header.size() &&
           checksum_holds(header);
}

std::shared_ptr<TarNode> read_tar(const std::filesystem::path& path) {
    return TarIndexer(path).run();
}

}  // namespace edgevit
