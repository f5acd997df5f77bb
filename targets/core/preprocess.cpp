#include "core/preprocess.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "core/errors.h"
#include "core/limits.h"

namespace edgevit {
namespace {

// Python's int(target * side / shorter): one division in double precision, then truncation.
int scaled_side(int side, int shorter, int target) {
    const double scaled = static_cast<double>(target) * side / shorter;
    if (scaled * target > static_cast<double>(kMaxResizedPixels)) {
        throw InputError("the image is too thin to resize: its sides are " + std::to_string(side) +
                         "x" + std::to_string(shorter));
    }
    return static_cast<int>(scaled);
}

}  // namespace

Size resized(int width, int height, int target) {
    const int shorter = std::min(width, height);
    return {width == shorter ? target : scaled_side(width, shorter, target),
            height == shorter ? target : scaled_side(height, shorter, target)};
}

Preprocessor::Preprocessor(const Manifest& manifest)
    : settings_(manifest.preprocessing), table_(manifest.table),
      element_size_bytes_(edgevit::element_size_bytes(manifest.input.dtype)),
      layout_(manifest.layout) {}

void Preprocessor::run(const ImageView& image, std::uint8_t* out) {
    const bool is_resized =
        settings_.resize_size && std::min(image.width, image.height) != *settings_.resize_size;
    const Size size = is_resized ? resized(image.width, image.height, *settings_.resize_size)
                                 : Size{image.width, image.height};
    const int crop = settings_.image_size;
    if (size.width < crop || size.height < crop) {
        throw InputError("the image has " + std::to_string(size.width) + "x" +
                         std::to_string(size.height) + " pixels, the network needs " +
                         std::to_string(crop) +
                         ": set resize_size so that smaller images are enlarged");
    }
    const Box box = {centre_crop_start(size.width, crop), centre_crop_start(size.height, crop),
                     crop, crop};
    if (is_resized) {
        resampler_.resize(image, size, box, settings_.interpolation, cropped_);
    }
    const ImageView source = is_resized ? cropped_.view() : part_of(image, box);
    const auto pixels = static_cast<std::size_t>(crop) * static_cast<std::size_t>(crop);
    const bool is_nhwc = layout_ == Layout::nhwc;
    const std::size_t pixel_step_bytes = element_size_bytes_ * (is_nhwc ? 3 : 1);
    const std::size_t channel_step_bytes = element_size_bytes_ * (is_nhwc ? 1 : pixels);
    for (int y = 0; y < crop; ++y) {
        const std::uint8_t* pixel = source.row(y);
        for (int x = 0; x < crop; ++x, out += pixel_step_bytes) {
            for (std::size_t channel = 0; channel < 3; ++channel, ++pixel) {
                std::memcpy(out + channel * channel_step_bytes,
                            table_[channel].data() + *pixel * element_size_bytes_,
                            element_size_bytes_);
            }
        }
    }
}

}  // namespace edgevit
