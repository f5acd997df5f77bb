#include "dataset.h"

#include <algorithm>
#include <cctype>
#include <functional>
#include <set>
#include <unordered_map>

#include "core/errors.h"
#include "core/limits.h"
#include "core/sha256.h"
#include "kinds.h"
#include "listing.h"

namespace edgevit {
namespace {

namespace fs = std::filesystem;

std::string first_part(const std::string& path) { return path.substr(0, path.find('/')); }

// Whether a part of a name is one of the labels.
using IsLabel = std::function<bool(const std::string&)>;

std::string second_part(const std::string& path) {
    return first_part(path.substr(path.find('/') + 1));
}

// The name of the one folder around all class folders, or nothing. A class folder that has folders
// of its own looks the same: the labels tell them apart.
std::string top_folder(const std::vector<FoundImage>& images, const IsLabel& is_label) {
    const std::string top = first_part(images.front().raw);
    const bool is_shared = std::all_of(images.begin(), images.end(), [&](const FoundImage& image) {
        return first_part(image.raw) == top &&
               std::count(image.raw.begin(), image.raw.end(), '/') >= 2;
    });
    if (!is_shared) {
        return "";
    }
    const auto is_in_class = [&](const FoundImage& image) {
        return is_label(printable(second_part(image.raw)));
    };
    return is_label(printable(top)) && !std::all_of(images.begin(), images.end(), is_in_class)
               ? ""
               : top;
}

bool is_split(std::string name) {
    static const std::set<std::string> kSplits = {"train", "training",   "val",     "valid",
                                                  "test",  "validation", "testing", "dev",
                                                  "eval",  "evaluation", "holdout"};
    std::transform(name.begin(), name.end(), name.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return kSplits.count(name) != 0;
}

// Raises InputError where the folders are train/, val/ and the like, and no classes.
void check_no_splits(const std::vector<Dataset::Entry>& entries, const IsLabel& is_label,
                     const std::string& path) {
    std::set<std::string> found;
    for (const Dataset::Entry& entry : entries) {
        found.insert(first_part(entry.path));
    }
    const bool are_splits = std::all_of(found.begin(), found.end(), is_split);
    if (found.size() < 2 || !are_splits || std::all_of(found.begin(), found.end(), is_label)) {
        return;
    }
    std::string names;
    for (const std::string& name : found) {
        names += (names.empty() ? "" : " and ") + name;
    }
    throw InputError(path + " holds " + names +
                     ", which are parts of a set and no classes; name one of them");
}

void set_labels(std::vector<Dataset::Entry>& entries, const std::vector<std::string>& labels,
                const std::string& path) {
    std::unordered_map<std::string, std::size_t> index;
    for (std::size_t i = 0; i < labels.size(); ++i) {
        index.emplace(labels[i], i);
    }
    for (const Dataset::Entry& entry : entries) {
        if (entry.path.find('/') == std::string::npos) {
            throw InputError(path + ": the image " + entry.path +
                             " is in no class folder; expected CLASS/IMAGE");
        }
    }
    check_no_splits(entries, [&](const std::string& name) { return index.count(name) != 0; }, path);
    for (Dataset::Entry& entry : entries) {
        const auto found = index.find(first_part(entry.path));
        if (found == index.end()) {
            throw InputError(path + ": the class folder '" + first_part(entry.path) +
                             "' is not one of the artifact's " + std::to_string(labels.size()) +
                             " labels ('" + labels.front() + "', ...)");
        }
        entry.label = found->second;
    }
}

// Ordered by the bytes of the printable name, and by those on disk where two look the same.
std::vector<Dataset::Entry> entries_of(std::vector<FoundImage> images, std::size_t skipped) {
    std::sort(images.begin(), images.end(),
              [](const FoundImage& a, const FoundImage& b) { return a.raw < b.raw; });
    std::vector<Dataset::Entry> entries;
    entries.reserve(images.size());
    for (FoundImage& image : images) {
        entries.push_back({printable(image.raw.substr(skipped)), std::move(image.file),
                           image.offset_bytes, image.size_bytes, 0});
    }
    std::stable_sort(
        entries.begin(), entries.end(),
        [](const Dataset::Entry& a, const Dataset::Entry& b) { return a.path < b.path; });
    return entries;
}

}  // namespace

Dataset Dataset::open(const fs::path& path, const std::vector<std::string>& labels,
                      const std::vector<std::string>& leave_out) {
    Listing listing = list_set(path);
    const std::string title = printable(path.string());
    Dataset dataset;
    dataset.path_ = path;
    dataset.notice_ = left_out_line(listing, title);
    if (listing.images.empty()) {
        const std::string expected = labels.empty() ? "" : "; expected CLASS/IMAGE.jpg below it";
        throw InputError(title + ": no JPEG or PNG image found, and no WebP, BMP or PPM" +
                         expected + (dataset.notice_.empty() ? "" : ". " + dataset.notice_));
    }
    if (!fs::is_directory(path)) {
        dataset.archive_ = open_for_reading(path);
    }
    const std::set<std::string> known(labels.begin(), labels.end());
    const IsLabel is_label = [&](const std::string& name) { return known.count(name) != 0; };
    const std::string top = labels.empty() ? "" : top_folder(listing.images, is_label);
    std::vector<Entry>& entries = dataset.entries_;
    entries = entries_of(std::move(listing.images), top.empty() ? 0 : top.size() + 1);
    if (!labels.empty()) {
        set_labels(entries, labels, title);
    }
    const std::set<std::string> dropped(leave_out.begin(), leave_out.end());
    entries.erase(
        std::remove_if(entries.begin(), entries.end(),
                       [&](const Entry& entry) { return dropped.count(entry.path) != 0; }),
        entries.end());
    if (entries.empty()) {
        throw InputError(title + ": no image is left that can be decoded");
    }
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
        throw InputError(printable(path_.string()) + ": " + entry.path + " has " +
                         std::to_string(entry.size_bytes) + " bytes, over 64 MiB");
    }
    const File opened = archive_ ? nullptr : open_for_reading(entry.file);
    std::FILE* file = archive_ ? archive_.get() : opened.get();
    out.resize(static_cast<std::size_t>(entry.size_bytes));
    if (fseeko(file, static_cast<off_t>(entry.offset_bytes), SEEK_SET) != 0 ||
        std::fread(out.data(), 1, out.size(), file) != out.size()) {
        throw InputError(printable(path_.string()) + ": " + entry.path + " ends before its " +
                         std::to_string(entry.size_bytes) + " bytes");
    }
}

}  // namespace edgevit
