// From RGB pixels of any size to the bytes of the artifact's input tensor, as edgevit.data.images
// does it.
#pragma once

#include <cstdint>

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

// The size after resizing the shorter side to `target`; the longer side is rounded down.
// Raises InputError when that would be more than kMaxResizedPixels: only the crop's are computed
// here, but edgevit.data.images has to hold them all.
Size resized(int width, int height, int target);

// One per thread. Keeps its working memory, so a size seen before costs no allocation.
class Preprocessor {
  public:
    explicit Preprocessor(const Manifest& manifest);

    // Resizes and crops `image`, computing the crop's pixels alone, and writes input.size_bytes()
    // bytes to `out`, in the manifest's layout. Raises InputError when the picture is smaller than
    // the crop and no resize was asked for.
    void run(const ImageView& image, std::uint8_t* out);

  private:
    Preprocessing settings_;
    std::array<Bytes, 3> table_;
    std::size_t element_size_bytes_;
    Layout layout_;
    Resampler resampler_;
    Image cropped_;
};

}  // namespace edgevit
