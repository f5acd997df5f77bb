// Labelled images in class folders, from a folder or a tar, read one at a time.
//
// Order, names and sha256 are those of edgevit.data.image_set.ImageSet: entries sorted by the bytes
// of their relative path "Class/name.jpg"; one top-level folder around the class folders is
// dropped; which files are images is decided in listing.h. Images of a task without classes are in
// any folder, and keep their whole path.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/bytes.h"

namespace edgevit {

class Dataset {
  public:
    struct Entry {
        std::string path;  // relative, with '/', printable
        std::string file;  // to open; empty in a tar
        std::uint64_t offset_bytes = 0;
        std::uint64_t size_bytes = 0;
        std::size_t label = 0;  // index into the labels given to open()
    };

    // The images of the entries named in `leave_out` are passed over. Raises InputError when `path`
    // is missing, unreadable, holds no image, an image outside a class folder, or a class that is
    // not in `labels`. Without labels folders mean nothing: images may lie in none, and all are of
    // label 0.
    static Dataset open(const std::filesystem::path& path, const std::vector<std::string>& labels,
                        const std::vector<std::string>& leave_out = {});

    const std::filesystem::path& path() const { return path_; }
    const std::vector<Entry>& entries() const { return entries_; }

    // One line on the files that look like images and are not read; empty where there are none.
    const std::string& notice() const { return notice_; }

    // Of one line "path<TAB>bytes" an entry, in order: names the set without reading it.
    std::string sha256() const;

    // The encoded image, into `out`. Raises InputError naming the file when it is over 64 MiB,
    // has shrunk or cannot be read.
    void read(const Entry& entry, Bytes& out) const;

  private:
    std::filesystem::path path_;
    std::string notice_;
    std::vector<Entry> entries_;
    File archive_;  // null for a folder
};

}  // namespace edgevit
