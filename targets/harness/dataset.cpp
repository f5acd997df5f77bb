#include "dataset.h"

#include <algorithm>
#include <cctype>
#include <unordered_map>

#include "core/errors.h"
#include "core/limits.h"
#include "core/sha256.h"
#include "decode.h"
#include "tar.h"

namespace edgevit {
namespace {

namespace fs = std::filesystem;

bool has_image_suffix(const std::string& path) {
    const std::string name = path.substr(path.rfind('/') + 1);
    const std::size_t dot = name.rfind('.');
    if (dot == std::string::npos || dot == 0) {
        return false;
    }
    std::string suffix = name.substr(dot);
    std::transform(suffix.begin(), suffix.end(), suffix.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return suffix == ".jpg" || suffix == ".jpeg" || suffix == ".png";
}

std::vector<Dataset::Entry> walk_folder(const fs::path& root) {
    std::vector<Dataset::Entry> entries;
    try {
        for (const fs::directory_entry& item : fs::recursive_directory_iterator(root)) {
            std::string name = item.path().lexically_relative(root).generic_string();
            if (has_image_suffix(name) && !item.is_directory()) {
                entries.push_back({std::move(name), 0, item.file_size(), 0});
            }
        }
    } catch (const fs::filesystem_error& error) {
        throw InputError(root.string() + ": cannot list the image folder: " + error.what());
    }
    return entries;
}

// "./a//b" becomes "a/b", as Python's PurePosixPath has it.
std::string normalised(const std::string& name) {
    std::string result;
    for (std::size_t start = 0; start <= name.size();) {
        const std::size_t end = std::min(name.find('/', start), name.size());
        const std::string part = name.substr(start, end - start);
        if (!part.empty() && part != ".") {
            result += (result.empty() ? "" : "/") + part;
        }
        start = end + 1;
    }
    return result;
}

std::vector<Dataset::Entry> walk_tar(const fs::path& path) {
    std::vector<Dataset::Entry> entries;
    for (const TarMember& member : index_tar(path)) {
        if (has_image_suffix(member.name)) {
            entries.push_back({normalised(member.name), member.offset_bytes, member.size_bytes, 0});
        }
    }
    return entries;
}

std::string first_part(const std::string& path) { return path.substr(0, path.find('/')); }

// The name of the one folder around all class folders, or nothing.
std::string top_folder(const std::vector<Dataset::Entry>& entries) {
    const std::string top = first_part(entries.front().path);
    const bool shared =
        std::all_of(entries.begin(), entries.end(), [&](const Dataset::Entry& entry) {
            return first_part(entry.path) == top &&
                   std::count(entry.path.begin(), entry.path.end(), '/') >= 2;
        });
    return shared ? top : "";
}

void set_labels(std::vector<Dataset::Entry>& entries, const std::vector<std::string>& labels,
                const fs::path& path) {
    std::unordered_map<std::string, std::size_t> index;
    for (std::size_t i = 0; i < labels.size(); ++i) {
        index.emplace(labels[i], i);
    }
    for (Dataset::Entry& entry : entries) {
        if (entry.path.find('/') == std::string::npos) {
            throw InputError(path.string() + ": the image " + entry.path +
                             " is in no class folder; expected CLASS/IMAGE");
        }
        const auto found = index.find(first_part(entry.path));
        if (found == index.end()) {
            throw InputError(path.string() + ": the class folder '" + first_part(entry.path) +
                             "' is not one of the artifact's " + std::to_string(labels.size()) +
                             " labels ('" + labels.front() + "', ...)");
        }
        entry.label = found->second;
    }
}

}  // namespace

Dataset Dataset::open(const fs::path& path, const std::vector<std::string>& labels) {
    Dataset dataset;
    dataset.path_ = dataset.root_ = path;
    if (fs::is_directory(path)) {
        dataset.entries_ = walk_folder(path);
    } else if (fs::exists(path)) {
        dataset.entries_ = walk_tar(path);
        dataset.archive_ = open_for_reading(path);
    } else {
        throw InputError(path.string() + ": no such image folder or tar");
    }
    std::vector<Entry>& entries = dataset.entries_;
    if (entries.empty()) {
        throw InputError(path.string() +
                         ": no JPEG or PNG image found; expected CLASS/IMAGE.jpg below it");
    }
    if (const std::string top = top_folder(entries); !top.empty()) {
        dataset.root_ /= top;
        for (Entry& entry : entries) {
            entry.path.erase(0, top.size() + 1);
        }
    }
    std::stable_sort(entries.begin(), entries.end(),
                     [](const Entry& a, const Entry& b) { return a.path < b.path; });
    set_labels(entries, labels, path);
    return dataset;
}

std::string Dataset::sha256() const {
    Sha256 hash;
    for (const Entry& entry : entries_) {
        hash.update(entry.path + "\t" + std::to_string(entry.size_bytes) + "\n");
    }
    return hash.finish();
}

void Dataset::read(const Entry& entry, Bytes& out) const {
    if (entry.size_bytes > kMaxImageBytes) {
        throw InputError(path_.string() + ": " + entry.path + " has " +
                         std::to_string(entry.size_bytes) + " bytes, over 64 MiB");
    }
    const File opened = archive_ ? nullptr : open_for_reading(root_ / entry.path);
    std::FILE* file = archive_ ? archive_.get() : opened.get();
    out.resize(static_cast<std::size_t>(entry.size_bytes));
    if (fseeko(file, static_cast<off_t>(entry.offset_bytes), SEEK_SET) != 0 ||
        std::fread(out.data(), 1, out.size(), file) != out.size()) {
        throw InputError(path_.string() + ": " + entry.path + " ends before its " +
                         std::to_string(entry.size_bytes) + " bytes");
    }
}

}  // namespace edgevit
