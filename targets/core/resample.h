// Resizing of 8-bit pixels, the arithmetic of edgevit.data.resample to the last bit.
//
// With antialias, bicubic, bilinear and box are Pillow's: two passes, rows first. Each output pixel
// is a weighted sum over the input pixels under the filter, which is stretched by the scale when
// shrinking (Heckbert, "Filter zooming", Graphics Gems III, 1992). Weights are normalised in double
// precision and then rounded to fixed point with 22 fractional bits; each pass rounds and clips to
// 8 bits. Area does the same with the covered areas as weights.
//
// Nearest, and the others without antialias, read 1, 2 or 4 neighbours along each axis: one sum,
// exact, rounded once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/image.h"
#include "core/preprocessing.h"

namespace edgevit {

// Keeps its working memory between calls, so that a size seen before costs no allocation.
class Resampler {
  public:
    // Writes the pixels of `box` to `out`, as a picture resized to `size` has them. No other pixel
    // is computed: time and memory are of the box and the input under it. All sides must be at
    // least 1, and the box must lie in the resized picture.
    void resize(const ImageView& in, Size size, const Box& box, Filter filter, Image& out);

  private:
    // The weights of a part of one axis: its pixel i, in the resized picture begin + i, reads
    // spans[i].count inputs from spans[i].first, with the weights from i * taps on.
    struct Span {
        int first;
        int count;
    };
    struct Axis {
        int in_size = 0;
        int out_size = 0;
        int begin = 0;
        int length = 0;
        Filter filter;
        std::size_t taps = 0;
        std::vector<Span> spans;
        std::vector<std::int32_t> weights;
        std::vector<double> row;  // one output pixel's weights while they are made

        void prepare(int in, int out, int from, int count, Filter chosen);
        const std::int32_t* weights_of(int i) const {
            return weights.data() + static_cast<std::size_t>(i) * taps;
        }
        // The inputs that it reads: from the first to one behind the last.
        int first_input() const { return spans.front().first; }
        int end_input() const { return spans.back().first + spans.back().count; }

      private:
        void make_room(std::size_t most_taps);
        void stretched();
        void covered();
        void neighbours();
    };

    void resize_in_passes(const ImageView& in, Size size, const Box& box, Filter filter,
                          Image& out);
    void resize_at_once(const ImageView& in, Size size, const Box& box, Filter filter, Image& out);
    template <std::size_t kChannels>
    static void resize_rows_of(const ImageView& in, const Axis& axis, Image& out);
    static void resize_rows(const ImageView& in, const Axis& axis, Image& out);
    static void resize_columns(const ImageView& in, const Axis& axis, Image& out);

    Axis horizontal_;
    Axis vertical_;
    Image between_;
};

}  // namespace edgevit
