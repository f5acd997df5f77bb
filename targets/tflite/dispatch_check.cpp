#include "dispatch_check.h"

#include <cstring>
#include <string>

namespace edgevit::litert {
namespace {

constexpr const char* kBad = "an NPU's operator has options that cannot be read";
constexpr int kUnsigned = 2, kText = 5, kMap = 9;  // FlexBuffers' types
constexpr std::size_t kEntries = 3;
// In the order of a map's keys.
constexpr const char* kKeys[kEntries] = {"bytecode_offset", "bytecode_size", "name"};

// Options as FlexBuffers has them: written back to front, each reference a distance backwards.
// Numbers are little-endian and not aligned.
class Flex {
  public:
    Flex(const FlatFile& file, const FlatVector<std::uint8_t>& options)
        : file_(file), options_(options) {}

    std::size_t size() const { return options_.size; }
    void require(bool condition) const { file_.require(condition, kBad); }

    std::uint64_t number(std::size_t position, std::size_t width) const {
        require((width == 1 || width == 2 || width == 4 || width == 8) && position <= size() &&
                size() - position >= width);
        std::uint64_t value = 0;
        for (std::size_t i = 0; i < width; ++i) {
            value |= std::uint64_t{options_[position + i]} << (8 * i);
        }
        return value;
    }

    // Where the reference at `position` leads.
    std::size_t follow(std::size_t position, std::size_t width) const {
        const std::uint64_t distance = number(position, width);
        require(distance > 0 && distance <= position);
        return position - static_cast<std::size_t>(distance);
    }

    // The number that lies before a vector or a text.
    std::uint64_t length(std::size_t position, std::size_t width) const {
        require(position >= width);
        return number(position - width, width);
    }

    // Whether the text at `position` is this one, with the zero behind it.
    bool is_text(std::size_t position, const char* text) const {
        const std::size_t bytes = std::strlen(text) + 1;
        return position <= size() && size() - position >= bytes &&
               std::memcmp(file_.data() + options_.first + position, text, bytes) == 0;
    }

  private:
    const FlatFile& file_;
    const FlatVector<std::uint8_t>& options_;
};

std::size_t width_of(std::uint64_t packed) { return std::size_t{1} << (packed & 3); }

struct Entry {
    std::size_t place;  // of the value, or of the reference to it
    int type;
    std::size_t width;  // of what a reference leads to
};

// The values of the map whose values lie at `values`, `width` bytes each.
Entry entry(const Flex& flex, std::size_t values, std::size_t width, std::size_t index) {
    const std::uint64_t packed = flex.number(values + kEntries * width + index, 1);
    return {values + index * width, static_cast<int>(packed >> 2), width_of(packed)};
}

void check_keys(const Flex& flex, std::size_t values, std::size_t width) {
    flex.require(flex.length(values, width) == kEntries && values >= 3 * width);
    const std::uint64_t key_width = flex.number(values - 2 * width, width);
    flex.require(key_width == 1 || key_width == 2 || key_width == 4 || key_width == 8);
    const auto step = static_cast<std::size_t>(key_width);
    const std::size_t keys = flex.follow(values - 3 * width, width);
    flex.require(flex.length(keys, step) == kEntries);
    for (std::size_t i = 0; i < kEntries; ++i) {
        flex.require(flex.is_text(flex.follow(keys + i * step, step), kKeys[i]));
    }
}

void check_name(const Flex& flex, const Entry& name, std::size_t width) {
    flex.require(name.type == kText);
    const std::size_t text = flex.follow(name.place, width);
    const std::uint64_t length = flex.length(text, name.width);
    flex.require(length < flex.size() - text &&
                 flex.number(text + static_cast<std::size_t>(length), 1) == 0);
}

}  // namespace

void check_dispatch(const FlatFile& file, const ModelOperator& made) {
    const Flex flex(file, made.custom_options);
    flex.require(flex.size() >= 3);
    const std::size_t root_width = static_cast<std::size_t>(flex.number(flex.size() - 1, 1));
    const std::uint64_t packed = flex.number(flex.size() - 2, 1);
    flex.require(root_width <= 8 && flex.size() >= 2 + root_width && packed >> 2 == kMap);
    const std::size_t width = width_of(packed);
    const std::size_t values = flex.follow(flex.size() - 2 - root_width, root_width);
    check_keys(flex, values, width);
    const Entry offset = entry(flex, values, width, 0), size = entry(flex, values, width, 1);
    flex.require(offset.type == kUnsigned && size.type == kUnsigned);
    check_name(flex, entry(flex, values, width, 2), width);
    const std::uint64_t first = flex.number(offset.place, width),
                        bytes = flex.number(size.place, width);
    file.require(bytes > 0 && first <= file.size() && bytes <= file.size() - first,
                 "an NPU's program lies behind its end");
}

}  // namespace edgevit::litert
