// Reads FlatBuffers that nobody vouches for: every position is compared with the file's end before
// it is read, so what was read here once can be read again by code that does not look.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/bytes.h"
#include "core/errors.h"

namespace edgevit::litert {

class FlatFile {
  public:
    // `where` is the file, for messages.
    FlatFile(ByteView bytes, std::string where) : bytes_(bytes), where_(std::move(where)) {}

    std::size_t size() const { return bytes_.size; }
    const std::uint8_t* data() const { return bytes_.data; }

    [[noreturn]] void fail(const std::string& what) const {
        throw InputError(where_ + ": is a damaged .tflite model: " + what + "; compile it again");
    }

    void require(bool condition, const char* what) const {
        if (!condition) {
            fail(what);
        }
    }

    // The number at `position`, which must lie in the file and be a multiple of its size.
    template <typename T>
    T number(std::size_t position) const {
        require(position % sizeof(T) == 0, "a number is not aligned");
        require(position <= size() && size() - position >= sizeof(T),
                "a number lies behind its end");
        T value;
        std::memcpy(&value, bytes_.data + position, sizeof(T));
        return value;
    }

    // Where the reference at `position` leads: forwards, in the file.
    std::size_t follow(std::size_t position) const {
        const auto distance = number<std::uint32_t>(position);
        require(distance > 0 && distance < size() - position, "a reference leads behind its end");
        return position + distance;
    }

    // Counts what is walked through: references may make a small file endless.
    void count(std::size_t things) const {
        counted_ += things;
        require(counted_ <= kMaxThings, "it has over a million tables");
    }

  private:
    static constexpr std::size_t kMaxThings = 1'000'000;

    ByteView bytes_;
    std::string where_;
    mutable std::size_t counted_ = 0;
};

// A vector of numbers in the file.
template <typename T>
struct FlatVector {
    const FlatFile* file = nullptr;
    std::size_t first = 0;
    std::size_t size = 0;

    T operator[](std::size_t index) const { return file->number<T>(first + index * sizeof(T)); }
    std::vector<T> copy() const {
        file->count(size);
        std::vector<T> values(size);
        if (size > 0) {
            std::memcpy(values.data(), file->data() + first, size * sizeof(T));
        }
        return values;
    }
};

// A table in the file. Fields are named by their number in the schema.
class FlatTable {
  public:
    // Raises InputError when the table or its list of fields does not lie in the file.
    FlatTable(const FlatFile& file, std::size_t position) : file_(&file), position_(position) {
        file.count(1);
        const std::int64_t list = static_cast<std::int64_t>(position) -
                                  static_cast<std::int64_t>(file.number<std::int32_t>(position));
        file.require(list >= 0 && list < static_cast<std::int64_t>(file.size()),
                     "a table's list of fields lies outside");
        list_ = static_cast<std::size_t>(list);
        list_bytes_ = file.number<std::uint16_t>(list_);
        table_bytes_ = file.number<std::uint16_t>(list_ + 2);
        file.require(list_bytes_ >= 4 && list_bytes_ % 2 == 0 && table_bytes_ >= 4 &&
                         file.size() - list_ >= list_bytes_ &&
                         file.size() - position >= table_bytes_,
                     "a table or its list of fields lies behind its end");
    }

    std::size_t field_count() const { return (list_bytes_ - 4) / 2; }

    // Where a field of `bytes` lies; nothing when it is left out.
    std::optional<std::size_t> field(std::size_t id, std::size_t bytes) const {
        if (id >= field_count()) {
            return std::nullopt;
        }
        const auto offset = file_->number<std::uint16_t>(list_ + 4 + 2 * id);
        if (offset == 0) {
            return std::nullopt;
        }
        file_->require(offset >= 4 && offset + bytes <= table_bytes_,
                       "a field lies outside of its table");
        return position_ + offset;
    }

    template <typename T>
    T number(std::size_t id, T otherwise = 0) const {
        const auto place = field(id, sizeof(T));
        return place ? file_->number<T>(*place) : otherwise;
    }

    // Empty when it is left out.
    template <typename T>
    FlatVector<T> vector(std::size_t id) const {
        const auto place = field(id, 4);
        if (!place) {
            return {file_, 0, 0};
        }
        const std::size_t start = file_->follow(*place);
        const std::size_t size = file_->number<std::uint32_t>(start), first = start + 4;
        file_->require(size <= (file_->size() - first) / sizeof(T), "a vector ends behind its end");
        file_->require(size == 0 || first % sizeof(T) == 0, "a vector is not aligned");
        return {file_, first, size};
    }

    // Empty when it is left out. The byte behind it is the zero that C expects.
    std::string_view text(std::size_t id) const {
        const FlatVector<char> text = vector<char>(id);
        if (text.file == nullptr || text.first == 0) {
            return {};
        }
        file_->require(
            text.first + text.size < file_->size() && file_->data()[text.first + text.size] == 0,
            "a text has no end");
        return {reinterpret_cast<const char*>(file_->data()) + text.first, text.size};
    }

    std::optional<FlatTable> table(std::size_t id) const {
        const auto place = field(id, 4);
        return place ? std::optional(FlatTable(*file_, file_->follow(*place))) : std::nullopt;
    }

    std::vector<FlatTable> tables(std::size_t id) const {
        const FlatVector<std::uint32_t> places = vector<std::uint32_t>(id);
        std::vector<FlatTable> found;
        found.reserve(places.size);  // its places lie in the file: no more than it has bytes
        for (std::size_t i = 0; i < places.size; ++i) {
            found.emplace_back(*file_, file_->follow(places.first + 4 * i));
        }
        return found;
    }

    // Whether each field that is there lies in the table, whatever its type.
    void check_fields() const {
        for (std::size_t id = 0; id < field_count(); ++id) {
            field(id, 1);
        }
    }

  private:
    const FlatFile* file_;
    std::size_t position_;
    std::size_t list_ = 0;
    std::size_t list_bytes_ = 0;
    std::size_t table_bytes_ = 0;
};

}  // namespace edgevit::litert
