#include "listing.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <string_view>

#include "core/bytes.h"
#include "core/errors.h"
#include "core/limits.h"
#include "kinds.h"
#include "tar.h"

namespace edgevit {
namespace {

constexpr int kMaxLinkSteps = 40;
constexpr std::array<std::pair<std::string_view, std::string_view>, 7> kUnpack = {
    {{"gzip file", "tar -xzf"},
     {"bzip2 file", "tar -xjf"},
     {"xz file", "tar -xJf"},
     {"zstd file", "tar --zstd -xf"},
     {"zip archive", "unzip"},
     {"7z archive", "7z x"},
     {"rar archive", "unrar x"}}};

// The first bytes of a file; none where it cannot be read.
Bytes head_of(std::FILE* file, std::uint64_t offset_bytes, std::uint64_t size_bytes) {
    Bytes head(static_cast<std::size_t>(std::min<std::uint64_t>(size_bytes, kHeadBytes)));
    if (file == nullptr || fseeko(file, static_cast<off_t>(offset_bytes), SEEK_SET) != 0) {
        return {};
    }
    head.resize(std::fread(head.data(), 1, head.size(), file));
    return head;
}

class Lister {
  public:
    explicit Lister(const std::filesystem::path& root) : root_(root.string()) {}

    Listing take() { return std::move(listing_); }

    void walk_folder() {
        struct stat info = {};
        if (::stat(root_.c_str(), &info) != 0) {
            fail_to_list(root_);
        }
        above_ = {{info.st_dev, info.st_ino}};
        walk_folder(root_, "");
    }

    void walk_tar() {
        archive_ = open_for_reading(root_);
        tree_ = read_tar(root_);
        walk_tar(*tree_, {}, "");
    }

  private:
    using Parts = std::vector<std::string>;
    using Node = std::shared_ptr<TarNode>;

    [[noreturn]] void fail_to_list(const std::string& folder) const {
        throw InputError(printable(root_) + ": the folder " + printable(folder) +
                         " cannot be listed: " + std::strerror(errno));
    }

    void visit(const std::string& path, std::size_t depth) {
        if (++visited_ > kMaxSetFiles || depth > static_cast<std::size_t>(kMaxSetDepth)) {
            throw InputError(printable(root_) + ": at " + printable(path).substr(0, 200) +
                             " the set has over " + std::to_string(kMaxSetFiles) + " files or " +
                             std::to_string(kMaxSetDepth) +
                             " folders inside each other: links may lead in circles");
        }
    }

    void leave_out(std::string path, std::string why) {
        listing_.left_out.emplace_back(std::move(path), std::move(why));
    }

    void add(FoundImage image) {
        const std::string suffix = suffix_of(image.raw.substr(image.raw.rfind('/') + 1));
        if (is_read_suffix(suffix)) {
            listing_.images.push_back(std::move(image));
        } else if (is_other_picture_suffix(suffix) || is_picture(head_of(image))) {
            leave_out(image.raw, suffix.empty() ? "file without a suffix" : printable(suffix));
        }
    }

    Bytes head_of(const FoundImage& image) const {
        if (image.file.empty()) {
            return edgevit::head_of(archive_.get(), image.offset_bytes, image.size_bytes);
        }
        const File file(std::fopen(image.file.c_str(), "rb"));
        return edgevit::head_of(file.get(), 0, kHeadBytes);
    }

    static std::vector<std::string> names_in(DIR* folder) {
        std::vector<std::string> names;
        while (const dirent* entry = ::readdir(folder)) {
            if (!is_hidden(entry->d_name)) {
                names.emplace_back(entry->d_name);
            }
        }
        return names;
    }

    // kMaxSetDepth bounds this recursion and the one through tars.
    // NOLINTNEXTLINE(misc-no-recursion)
    void walk_folder(const std::string& folder, const std::string& prefix) {
        const std::unique_ptr<DIR, int (*)(DIR*)> opened(::opendir(folder.c_str()), ::closedir);
        if (opened == nullptr) {
            fail_to_list(folder);
        }
        for (const std::string& name : names_in(opened.get())) {
            const std::string path = prefix + name;
            const std::string full = folder + "/" + name;
            visit(path, above_.size());
            struct stat info = {};
            if (::stat(full.c_str(), &info) != 0) {
                if (errno == EACCES || errno == EPERM) {
                    throw InputError(printable(root_) + ": " + printable(path) +
                                     " cannot be read: " + std::strerror(errno));
                }
                leave_out(path, "dangling link");
            } else if (S_ISDIR(info.st_mode)) {
                const std::pair<dev_t, ino_t> identity(info.st_dev, info.st_ino);
                if (std::find(above_.begin(), above_.end(), identity) != above_.end()) {
                    leave_out(path, "link to a folder around it");
                } else {
                    above_.push_back(identity);
                    walk_folder(full, path + "/");
                    above_.pop_back();
                }
            } else if (S_ISREG(info.st_mode)) {
                add({path, full, 0, static_cast<std::uint64_t>(info.st_size)});
            } else {
                leave_out(path, "special file");
            }
        }
    }

    // NOLINTNEXTLINE(misc-no-recursion)
    void walk_tar(const TarNode& folder, const Parts& real, const std::string& prefix) {
        tar_above_.push_back(&folder);
        for (const auto& [name, member] : folder.members) {
            if (is_hidden(name)) {
                continue;
            }
            const std::string path = prefix + name;
            visit(path, tar_above_.size());
            Node node = member;
            Parts at = real;
            at.push_back(name);
            if (node->kind == TarNode::Kind::link) {
                node = followed(real, *node, at);
            }
            add_node(node, at, path);
        }
        tar_above_.pop_back();
    }

    // NOLINTNEXTLINE(misc-no-recursion)
    void add_node(const Node& node, const Parts& real, const std::string& path) {
        if (node == nullptr) {
            leave_out(path, "dangling link");
        } else if (node->kind == TarNode::Kind::other) {
            leave_out(path.substr(std::min(path.find_first_not_of('/'), path.size())), node->text);
        } else if (node->kind == TarNode::Kind::file) {
            add({path, "", node->offset_bytes, node->size_bytes});
        } else if (std::find(tar_above_.begin(), tar_above_.end(), node.get()) !=
                   tar_above_.end()) {
            leave_out(path, "link to a folder around it");
        } else {
            walk_tar(*node, real, path + "/");
        }
    }

    Node node_at(const Parts& parts) const {
        Node node = tree_;
        for (const std::string& part : parts) {
            const auto found = node->members.find(part);
            if (found == node->members.end()) {
                return nullptr;
            }
            node = found->second;
        }
        return node;
    }

    // The parts of a link's target, the last first; nothing where it leads out of the archive.
    static std::optional<Parts> reversed_parts(const TarNode& link) {
        if (link.text.empty() || link.text.front() == '/') {
            return std::nullopt;
        }
        Parts parts;
        for (std::size_t end = link.text.size();;) {
            const std::size_t slash = end == 0 ? std::string::npos : link.text.rfind('/', end - 1);
            const std::size_t start = slash == std::string::npos ? 0 : slash + 1;
            std::string part = link.text.substr(start, end - start);
            if (!part.empty() && part != ".") {
                parts.push_back(std::move(part));
            }
            if (slash == std::string::npos) {
                return parts;
            }
            end = slash;
        }
    }

    // What a link in the folder `real` leads to, null outside the archive; `at` becomes its path.
    Node followed(const Parts& real, const TarNode& link, Parts& at) const {
        at = real;
        std::optional<Parts> waiting = reversed_parts(link);
        int steps = 0;
        while (waiting && !waiting->empty()) {
            const std::string part = std::move(waiting->back());
            waiting->pop_back();
            if (part == "..") {
                if (at.empty()) {
                    return nullptr;
                }
                at.pop_back();
                continue;
            }
            at.push_back(part);
            const Node node = node_at(at);
            if (node == nullptr) {
                return nullptr;
            }
            if (node->kind == TarNode::Kind::link) {
                at.pop_back();
                const std::optional<Parts> more = reversed_parts(*node);
                if (!more || ++steps >= kMaxLinkSteps) {
                    return nullptr;
                }
                waiting->insert(waiting->end(), more->begin(), more->end());
            }
        }
        return waiting ? node_at(at) : nullptr;
    }

    std::string root_;
    Listing listing_;
    std::int64_t visited_ = 0;
    std::vector<std::pair<dev_t, ino_t>> above_;  // the folders around the one that is walked
    File archive_;
    Node tree_;
    std::vector<const TarNode*> tar_above_;
};

void check_not_packed(const std::filesystem::path& path) {
    if (begins_as_tar(path)) {  // with a name, which may look like anything: "BMW/"
        return;
    }
    const File file = open_for_reading(path);
    const std::string kind = kind_of(head_of(file.get(), 0, kHeadBytes));
    for (const auto& [packed, command] : kUnpack) {
        if (kind == packed) {
            throw InputError(printable(path.string()) + " is a " + kind +
                             ", and image sets are read from a folder or an uncompressed tar: "
                             "unpack it in a folder of its own with `" +
                             std::string(command) + "` and name that");
        }
    }
    if (!kind.empty()) {
        throw InputError(printable(path.string()) + ": not a readable, uncompressed tar: it is a " +
                         kind + "; name the folder or tar of class folders");
    }
}

}  // namespace

Listing list_set(const std::filesystem::path& path) {
    struct stat info = {};
    if (::stat(path.c_str(), &info) != 0) {
        throw InputError(printable(path.string()) +
                         ": no such image folder or tar: " + std::strerror(errno));
    }
    Lister lister(path);
    if (S_ISDIR(info.st_mode)) {
        lister.walk_folder();
    } else if (S_ISREG(info.st_mode)) {
        check_not_packed(path);
        lister.walk_tar();
    } else {
        throw InputError(printable(path.string()) +
                         " is neither a folder nor a file: name an image folder or a tar");
    }
    return lister.take();
}

std::string left_out_line(const Listing& listing, const std::string& title) {
    if (listing.left_out.empty()) {
        return "";
    }
    std::map<std::string, std::size_t> counts;
    std::string first = listing.left_out.front().first;
    bool has_pictures = false;
    for (const auto& [path, why] : listing.left_out) {
        ++counts[why];
        first = std::min(first, path);
        has_pictures =
            has_pictures || why.front() == '.' || why.find("suffix") != std::string::npos;
    }
    std::vector<std::pair<std::string, std::size_t>> parts(counts.begin(), counts.end());
    std::stable_sort(parts.begin(), parts.end(),
                     [](const auto& a, const auto& b) { return a.second > b.second; });
    const std::size_t total = listing.left_out.size();
    std::string line = std::to_string(total) + (total == 1 ? " file of " : " files of ") + title +
                       (total == 1 ? " was" : " were") + " left out: ";
    for (const auto& [why, count] : parts) {
        line += (&why == &parts.front().first ? "" : ", ") + std::to_string(count) + " " + why;
    }
    line += " (first: " + printable(first) + ")";
    if (has_pictures) {
        line += "; convert pictures to JPEG, PNG or WebP, with that suffix, to have them read";
    }
    return line;
}

}  // namespace edgevit
