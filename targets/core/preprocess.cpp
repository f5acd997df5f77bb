#include "core/preprocess.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "core/errors.h"
#include "core/limits.h"

namespace edgevit {
namespace {

std::string text_of(int a, int b) { return std::to_string(a) + "x" + std::to_string(b); }

// Python's int(target * side / shorter): one division in double precision, then truncation.
int scaled_side(int side, int shorter, int target) {
    const double scaled = static_cast<double>(target) * side / shorter;
    return static_cast<int>(std::min(scaled, static_cast<double>(kMaxResizedPixels) + 1));
}

// side * target / by, rounded half up.
std::int64_t rounded_share(std::int64_t side, std::int64_t target, std::int64_t by) {
    return std::max<std::int64_t>(1, (2 * side * target + by) / (2 * by));
}

// The size of the picture's shape that fills `target`, or with is_fit the one that it holds.
Size of_same_shape(int width, int height, Size target, bool is_fit) {
    const std::int64_t wide = std::int64_t{width} * target.height;
    const std::int64_t high = std::int64_t{height} * target.width;
    if (wide == high) {
        return target;
    }
    std::int64_t new_width = target.width;
    std::int64_t new_height = target.height;
    if ((wide > high) == is_fit) {
        new_height = rounded_share(height, target.width, width);
    } else {
        new_width = rounded_share(width, target.height, height);
    }
    const auto bounded = [](std::int64_t side) {
        return static_cast<int>(std::min(side, kMaxResizedPixels + 1));
    };
    return {bounded(new_width), bounded(new_height)};
}

Size unchecked_size(int width, int height, const Preprocessing& settings) {
    if (settings.resize == Resize::exact) {
        return settings.target;
    }
    if (settings.resize != Resize::shorter) {
        return of_same_shape(width, height, settings.target, settings.resize == Resize::fit);
    }
    const int target = settings.target.width;
    const int shorter = std::min(width, height);
    return {width == shorter ? target : scaled_side(width, shorter, target),
            height == shorter ? target : scaled_side(height, shorter, target)};
}

}  // namespace

Size resized(int width, int height, const Preprocessing& settings) {
    if (settings.resize == Resize::none) {
        return {width, height};
    }
    const Size size = unchecked_size(width, height, settings);
    // After the resize, or between its passes. Pillow holds sides as float32.
    constexpr int longest = 1 << 24;
    const std::int64_t most = std::int64_t{size.width} * std::max(size.height, height);
    if (most > kMaxResizedPixels || std::max(width, height) > longest) {
        throw InputError("the image is too thin to resize: its sides are " +
                         text_of(std::max(width, height), std::min(width, height)));
    }
    return size;
}

Preprocessor::Preprocessor(const Manifest& manifest)
    : settings_(manifest.preprocessing), table_(manifest.table),
      element_size_bytes_(edgevit::element_size_bytes(manifest.input.dtype)),
      layout_(manifest.layout) {}

Preprocessor::Part Preprocessor::part_of_side(int side, int wanted) const {
    if (side >= wanted) {
        return {settings_.is_at_top_left ? 0 : centre_crop_start(side, wanted), wanted, 0};
    }
    return {0, side, settings_.is_at_top_left ? 0 : (wanted - side) / 2};
}

// Grey is made before the resize, as Pillow's convert("L"): ITU-R 601 in 16 bits, rounded.
ImageView Preprocessor::with_channels(const ImageView& image) {
    const int wanted = channel_count(settings_.channels);
    if (image.channels != 3 && image.channels != wanted) {
        throw CallError("a picture of " + std::to_string(image.channels) +
                        " channels, which the model's input does not have");
    }
    if (image.channels == wanted) {
        return image;
    }
    source_.reset(image.width, image.height, wanted);
    for (int y = 0; y < image.height; ++y) {
        const std::uint8_t* from = image.row(y);
        std::uint8_t* to = source_.row(y);
        for (int x = 0; x < image.width; ++x, from += 3, to += wanted) {
            if (wanted == 1) {
                const unsigned sum = from[0] * 19595U + from[1] * 38470U + from[2] * 7471U;
                to[0] = static_cast<std::uint8_t>((sum + 0x8000U) >> 16);
            } else {
                to[0] = from[0], to[1] = from[1], to[2] = from[2], to[3] = 255;
            }
        }
    }
    return source_.view();
}

std::size_t Preprocessor::step_bytes(std::size_t nhwc, std::size_t nchw) const {
    return element_size_bytes_ * (layout_ == Layout::nhwc ? nhwc : nchw);
}

void Preprocessor::fill_with_padding(std::uint8_t* out) const {
    const auto pixels = static_cast<std::size_t>(settings_.size.width) *
                        static_cast<std::size_t>(settings_.size.height);
    const std::size_t channel_step = step_bytes(1, pixels);
    const std::size_t pixel_step = step_bytes(table_.size(), 1);
    for (std::size_t channel = 0; channel < table_.size(); ++channel) {
        const std::uint8_t* value =
            table_[channel].data() + settings_.pad_color[channel] * element_size_bytes_;
        for (std::size_t i = 0; i < pixels; ++i) {
            std::memcpy(out + channel * channel_step + i * pixel_step, value, element_size_bytes_);
        }
    }
}

void Preprocessor::write(const ImageView& part, const Part& rows, const Part& columns,
                         std::uint8_t* out) {
    const auto width = static_cast<std::size_t>(settings_.size.width);
    const std::size_t pixels = width * static_cast<std::size_t>(settings_.size.height);
    const std::size_t channels = table_.size();
    const std::size_t pixel_step = step_bytes(channels, 1);
    const std::size_t channel_step = step_bytes(1, pixels);
    const bool is_turned = settings_.channels == Channels::bgr;
    for (int y = 0; y < rows.length; ++y) {
        const std::uint8_t* pixel = part.row(y);
        const std::size_t first = static_cast<std::size_t>(rows.before + y) * width +
                                  static_cast<std::size_t>(columns.before);
        std::uint8_t* to = out + first * pixel_step;
        for (int x = 0; x < columns.length; ++x, to += pixel_step, pixel += channels) {
            for (std::size_t channel = 0; channel < channels; ++channel) {
                const std::uint8_t value = pixel[is_turned ? channels - 1 - channel : channel];
                std::memcpy(to + channel * channel_step,
                            table_[channel].data() + value * element_size_bytes_,
                            element_size_bytes_);
            }
        }
    }
}

void Preprocessor::run(const ImageView& image, std::uint8_t* out) {
    const Size size = resized(image.width, image.height, settings_);
    const Size wanted = settings_.size;
    const Part columns = part_of_side(size.width, wanted.width);
    const Part rows = part_of_side(size.height, wanted.height);
    const bool is_padded = columns.length < wanted.width || rows.length < wanted.height;
    if (is_padded && settings_.resize != Resize::fit) {
        throw InputError("the image has " + text_of(size.width, size.height) +
                         " pixels, the network needs " +
                         (settings_.side() != 0 ? std::to_string(settings_.side())
                                                : text_of(wanted.height, wanted.width)) +
                         ": set resize_size so that smaller images are enlarged");
    }
    if (is_padded) {
        fill_with_padding(out);
    }
    const ImageView source = with_channels(image);
    const Box box = {columns.start, rows.start, columns.length, rows.length};
    if (size.width == image.width && size.height == image.height) {
        write(part_of(source, box), rows, columns, out);
        return;
    }
    resampler_.resize(source, size, box, settings_.filter, cropped_);
    write(cropped_.view(), rows, columns, out);
}

}  // namespace edgevit
