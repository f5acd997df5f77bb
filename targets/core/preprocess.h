// From pixels of any size to the bytes of the artifact's input tensor, as
// edgevit.data.preprocessing does it.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "core/image.h"
#include "core/manifest.h"
#include "core/resample.h"

namespace edgevit {

// Where a crop of `crop` pixels starts on a side of `side` pixels: half of the rest, rounded half
// to even as Python's round() does. Needs side >= crop.
constexpr int centre_crop_start(int side, int crop) {
    const int rest = side - crop;
    const int half = rest / 2;
    return rest % 2 == 0 ? half : half + half % 2;
}

// The size of a picture after the resize that the settings ask for; beside a shorter side that is
// given the longer one is rounded down. Raises InputError when that, or the picture between its two
// passes, would be more than kMaxResizedPixels: only the crop's are computed here, but
// edgevit.data.preprocessing has to hold them all.
Size resized(int width, int height, const Preprocessing& settings);

// One per thread. Keeps its working memory, so a size seen before costs no allocation.
class Preprocessor {
  public:
    explicit Preprocessor(const Manifest& manifest);

    // Whether run() makes use of a picture's alpha.
    bool takes_alpha() const { return settings_.channels == Channels::rgba; }

    // Resizes, crops and pads `image`, which is RGB, or where takes_alpha() RGBA too, computing the
    // crop's pixels alone, and writes input.size_bytes() bytes to `out`, in the manifest's layout.
    // Raises InputError when the picture is smaller than the crop and nothing enlarges or pads it.
    void run(const ImageView& image, std::uint8_t* out);

  private:
    // Of a side of the resized picture: where the crop starts, its length, and the padding before.
    struct Part {
        int start;
        int length;
        int before;
    };

    Part part_of_side(int side, int wanted) const;
    ImageView with_channels(const ImageView& image);
    void write(const ImageView& part, const Part& rows, const Part& columns, std::uint8_t* out);
    void fill_with_padding(std::uint8_t* out) const;
    std::size_t step_bytes(std::size_t nhwc, std::size_t nchw) const;

    Preprocessing settings_;
    std::vector<Bytes> table_;
    std::size_t element_size_bytes_;
    Layout layout_;
    Resampler resampler_;
    Image source_;
    Image cropped_;
};

}  // namespace edgevit
