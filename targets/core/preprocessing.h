// How a picture becomes the network's input, as manifest.json says it.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "core/image.h"

namespace edgevit {

// See edgevit/data/resample.py, which defines them.
enum class Interpolation { bicubic, bilinear, nearest, box, area };

// Without antialias, bicubic and bilinear read 4 and 2 neighbours at any scale.
struct Filter {
    Interpolation interpolation = Interpolation::bicubic;
    bool antialias = true;

    Filter() = default;
    Filter(Interpolation chosen, bool widened = true)  // NOLINT(google-explicit-constructor)
        : interpolation(chosen), antialias(widened) {}
    bool operator==(const Filter& other) const {
        return interpolation == other.interpolation && antialias == other.antialias;
    }
};

// What a picture is resized to before the crop.
//   none     it stays as it is
//   shorter  its shorter side becomes the target, its shape is kept
//   fill     the smallest size of its shape that covers the target
//   exact    the target, whatever its shape was
//   fit      the largest size of its shape that the target holds; what lacks is padded
enum class Resize { none, shorter, fill, exact, fit };

// The planes of the input in their order; grey is ITU-R 601, alpha is straight.
enum class Channels { rgb, bgr, grey, rgba };

constexpr int channel_count(Channels channels) {
    return channels == Channels::grey ? 1 : channels == Channels::rgba ? 4 : 3;
}

// The step from pixels to the input tensor is Manifest::table; mean and std are what the table was
// made of.
struct Preprocessing {
    Size size;  // of the input: its centre crop
    Resize resize = Resize::none;
    Size target;  // of Resize::shorter both sides are the shorter one's
    Filter filter;
    Channels channels = Channels::rgb;
    std::array<std::uint8_t, 4> pad_color = {};  // one a channel, of fit
    bool is_at_top_left = false;                 // of fit; else the picture lies in the middle
    std::vector<double> mean;
    std::vector<double> std;

    // Of a square input, pixels; else 0.
    int side() const { return size.width == size.height ? size.width : 0; }
};

}  // namespace edgevit
