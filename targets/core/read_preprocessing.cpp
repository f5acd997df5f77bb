#include "core/read_preprocessing.h"

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "core/limits.h"

namespace edgevit {
namespace {

template <typename Value, std::size_t Count>
using Names = std::array<std::pair<const char*, Value>, Count>;

constexpr Names<Interpolation, 5> kInterpolations = {{{"bicubic", Interpolation::bicubic},
                                                      {"bilinear", Interpolation::bilinear},
                                                      {"nearest", Interpolation::nearest},
                                                      {"box", Interpolation::box},
                                                      {"area", Interpolation::area}}};
constexpr Names<Resize, 3> kResizes = {
    {{"shorter", Resize::shorter}, {"exact", Resize::exact}, {"fit", Resize::fit}}};
constexpr Names<Channels, 4> kChannels = {{{"RGB", Channels::rgb},
                                           {"BGR", Channels::bgr},
                                           {"L", Channels::grey},
                                           {"RGBA", Channels::rgba}}};
constexpr Names<bool, 2> kPositions = {{{"centre", false}, {"top-left", true}}};

template <typename Value, std::size_t Count>
Value read_choice(const JsonReader& reader, const char* key, const Names<Value, Count>& names) {
    const std::string given = reader.text(key);
    std::string known;
    for (const auto& [name, value] : names) {
        if (given == name) {
            return value;
        }
        known += (known.empty() ? "" : ", ") + std::string(name);
    }
    reader.fail(key, "is '" + given + "', known are " + known);
}

// An integer, or [height, width]; each side from its least to `most`.
Size read_size(const JsonReader& reader, const char* key, Size least, std::int64_t most) {
    const nlohmann::json& value = reader.at(key);
    if (!value.is_array()) {
        const std::int64_t from = std::max(least.width, least.height);
        const auto side = static_cast<int>(reader.integer(value, key, from, most));
        return {side, side};
    }
    const nlohmann::json& sides = reader.array(key, 2);
    const auto height = static_cast<int>(reader.integer(sides[0], key, least.height, most));
    return {static_cast<int>(reader.integer(sides[1], key, least.width, most)), height};
}

// A resize of "shorter" to one side that is given, and of others to the input's size where none is.
void read_resize(const JsonReader& reader, Preprocessing& result) {
    result.resize =
        reader.has("resize") ? read_choice(reader, "resize", kResizes) : Resize::shorter;
    if (reader.is_null("resize_size")) {
        result.resize = result.resize == Resize::shorter ? Resize::none : result.resize;
        result.target = result.size;
        return;
    }
    const bool is_one = !reader.at("resize_size").is_array();
    Size least = result.resize == Resize::fit ? Size{1, 1} : result.size;
    if (result.resize == Resize::shorter && is_one) {
        // The longer side grows with it.
        least.width = least.height = std::min(least.width, least.height);
    }
    result.target = read_size(reader, "resize_size", least, kMaxResizeSize);
    if (result.resize == Resize::shorter && result.target.width != result.target.height) {
        result.resize = Resize::fill;
    }
}

void read_padding(const JsonReader& reader, Preprocessing& result) {
    if (reader.has("pad_position")) {
        result.is_at_top_left = read_choice(reader, "pad_position", kPositions);
    }
    const auto count = static_cast<std::size_t>(channel_count(result.channels));
    std::size_t given = 0;
    if (reader.has("pad_color")) {
        const nlohmann::json& color = reader.array("pad_color", 0, 4);
        given = color.size();
        for (std::size_t i = 0; i < given; ++i) {
            result.pad_color[i] =
                static_cast<std::uint8_t>(reader.integer(color[i], "pad_color", 0, 255));
        }
    }
    if (result.resize != Resize::fit && (given != 0 || result.is_at_top_left)) {
        reader.fail("pad_color", "and pad_position belong to the resize 'fit'");
    }
    if (given == 1) {
        result.pad_color.fill(result.pad_color[0]);
    } else if (given != 0 && given != count) {
        reader.fail("pad_color", "must be an array of " + std::to_string(count));
    }
}

std::vector<double> read_shares(const JsonReader& reader, const char* key, int channels) {
    std::vector<double> values;
    const nlohmann::json& array = reader.array(key, 1, 4);
    if (array.size() != 1 && array.size() != static_cast<std::size_t>(channels)) {
        reader.fail(key, "must be an array of " + std::to_string(channels));
    }
    for (const nlohmann::json& value : array) {
        values.push_back(reader.number(value, key));
        if (values.back() < 0 || values.back() > 1) {
            reader.fail(key, "must be from 0 to 1");
        }
    }
    return values;
}

bool is_of_version_2(const JsonReader& reader, const Preprocessing& result) {
    const Interpolation filter = result.filter.interpolation;
    return !reader.at("image_size").is_array() && result.side() != 0 &&
           (result.resize == Resize::none || result.resize == Resize::shorter) &&
           (filter == Interpolation::bicubic || filter == Interpolation::bilinear) &&
           result.filter.antialias && result.channels == Channels::rgb;
}

}  // namespace

Preprocessing read_preprocessing(const JsonReader& reader, std::int64_t version) {
    Preprocessing result;
    result.size = read_size(reader, "image_size", {1, 1}, kMaxImageSize);
    read_resize(reader, result);
    result.filter.interpolation = read_choice(reader, "interpolation", kInterpolations);
    const bool averages = result.filter.interpolation == Interpolation::box ||
                          result.filter.interpolation == Interpolation::area;
    if (reader.has("antialias")) {
        result.filter.antialias = reader.boolean("antialias");
    }
    if (averages && !result.filter.antialias) {
        reader.fail("antialias", "must be true: this interpolation averages pixels");
    }
    if (reader.has("channels")) {
        result.channels = read_choice(reader, "channels", kChannels);
    }
    read_padding(reader, result);
    result.mean = read_shares(reader, "mean", channel_count(result.channels));
    result.std = read_shares(reader, "std", channel_count(result.channels));
    if (*std::min_element(result.std.begin(), result.std.end()) <= 0) {
        reader.fail("std", "must be positive");
    }
    if (version < 3 && !is_of_version_2(reader, result)) {
        reader.fail("", "says what schema_version 3 brought, and schema_version is " +
                            std::to_string(version));
    }
    return result;
}

}  // namespace edgevit
