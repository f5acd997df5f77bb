#include "core/resample.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace edgevit {
namespace {

constexpr int kWeightBits = 22;
constexpr std::int32_t kHalf = 1 << (kWeightBits - 1);

double triangle(double x) {
    x = std::fabs(x);
    return x < 1.0 ? 1.0 - x : 0.0;
}

// Keys' cubic convolution (1981) with a = -0.5.
double cubic(double x) {
    constexpr double a = -0.5;
    x = std::fabs(x);
    if (x < 1.0) {
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
    }
    if (x < 2.0) {
        return (((x - 5.0) * x + 8.0) * x - 4.0) * a;
    }
    return 0.0;
}

// A position as Pillow rounds it: cut off towards zero, below zero too.
int rounded(double position) {
    return static_cast<int>(position + 0.5);  // NOLINT(bugprone-incorrect-roundings)
}

std::int32_t to_fixed(double weight) {
    // Half away from zero, by truncation: what decides the last bit of a weight.
    const double scaled = weight * (1 << kWeightBits);
    return static_cast<std::int32_t>(weight < 0 ? scaled - 0.5 : scaled + 0.5);
}

std::uint8_t to_pixel(std::int32_t sum) {
    return static_cast<std::uint8_t>(std::clamp(sum >> kWeightBits, 0, 255));
}

}  // namespace

void Resampler::Axis::prepare(int in, int out, int from, int count, Interpolation filter) {
    if (in == in_size && out == out_size && from == begin && count == length &&
        filter == interpolation) {
        return;
    }
    in_size = in, out_size = out, begin = from, length = count, interpolation = filter;
    const double scale = static_cast<double>(in) / out;
    const double stretch = std::max(scale, 1.0);
    const double support = (filter == Interpolation::bicubic ? 2.0 : 1.0) * stretch;
    taps = static_cast<std::size_t>(std::ceil(support)) * 2 + 1;
    spans.resize(static_cast<std::size_t>(length));
    weights.assign(taps * static_cast<std::size_t>(length), 0);
    row.resize(taps);
    for (int i = 0; i < length; ++i) {
        const double centre = (begin + i + 0.5) * scale;
        const int first = std::max(rounded(centre - support), 0);
        const int inputs = std::min(rounded(centre + support), in) - first;
        double total = 0.0;
        for (int k = 0; k < inputs; ++k) {
            const double x = (k + first - centre + 0.5) * (1.0 / stretch);
            row[static_cast<std::size_t>(k)] =
                filter == Interpolation::bicubic ? cubic(x) : triangle(x);
            total += row[static_cast<std::size_t>(k)];
        }
        spans[static_cast<std::size_t>(i)] = {first, inputs};
        std::int32_t* fixed = weights.data() + static_cast<std::size_t>(i) * taps;
        for (int k = 0; k < inputs; ++k) {
            const double weight = row[static_cast<std::size_t>(k)];
            fixed[k] = to_fixed(total != 0.0 ? weight / total : weight);
        }
    }
}

void Resampler::resize_rows(const ImageView& in, const Axis& axis, Image& out) {
    out.reset(axis.length, in.height);
    for (int y = 0; y < in.height; ++y) {
        std::uint8_t* target = out.row(y);
        for (int x = 0; x < axis.length; ++x, target += 3) {
            const Span span = axis.spans[static_cast<std::size_t>(x)];
            const std::int32_t* weight =
                axis.weights.data() + static_cast<std::size_t>(x) * axis.taps;
            const std::uint8_t* source = in.row(y) + static_cast<std::size_t>(span.first) * 3;
            std::int32_t red = kHalf, green = kHalf, blue = kHalf;
            for (int k = 0; k < span.count; ++k, source += 3) {
                red += source[0] * weight[k];
                green += source[1] * weight[k];
                blue += source[2] * weight[k];
            }
            target[0] = to_pixel(red), target[1] = to_pixel(green), target[2] = to_pixel(blue);
        }
    }
}

// `in` begins with the first row that the axis reads.
void Resampler::resize_columns(const ImageView& in, const Axis& axis, Image& out) {
    out.reset(in.width, axis.length);
    const std::size_t row_bytes = out.stride_bytes();
    for (int y = 0; y < axis.length; ++y) {
        const Span span = axis.spans[static_cast<std::size_t>(y)];
        const std::int32_t* weight = axis.weights.data() + static_cast<std::size_t>(y) * axis.taps;
        const int first = span.first - axis.first_input();
        std::uint8_t* target = out.row(y);
        for (std::size_t i = 0; i < row_bytes; ++i) {
            std::int32_t sum = kHalf;
            for (int k = 0; k < span.count; ++k) {
                sum += in.row(first + k)[i] * weight[k];
            }
            target[i] = to_pixel(sum);
        }
    }
}

void Resampler::resize(const ImageView& in, Size size, const Box& box, Interpolation interpolation,
                       Image& out) {
    Box input = box;  // of the input, what is read
    if (size.height != in.height) {
        vertical_.prepare(in.height, size.height, box.top, box.height, interpolation);
        input.top = vertical_.first_input();
        input.height = vertical_.end_input() - input.top;
    }
    if (size.width != in.width) {
        horizontal_.prepare(in.width, size.width, box.left, box.width, interpolation);
        input.left = 0, input.width = in.width;
    }
    ImageView source = part_of(in, input);
    if (size.width != in.width) {
        Image& target = size.height == in.height ? out : between_;
        resize_rows(source, horizontal_, target);
        source = target.view();
    }
    if (size.height != in.height) {
        resize_columns(source, vertical_, out);
    } else if (size.width == in.width) {
        out.reset(box.width, box.height);
        for (int y = 0; y < box.height; ++y) {
            std::memcpy(out.row(y), source.row(y), out.stride_bytes());
        }
    }
}

}  // namespace edgevit
