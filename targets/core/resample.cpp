#include "core/resample.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

namespace edgevit {
namespace {

constexpr int kWeightBits = 22;
constexpr std::int32_t kOne = 1 << kWeightBits;
constexpr std::int32_t kHalf = kOne / 2;

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

double box(double x) { return x > -0.5 && x <= 0.5 ? 1.0 : 0.0; }

double weight_at(Interpolation filter, double x) {
    switch (filter) {
        case Interpolation::bicubic:
            return cubic(x);
        case Interpolation::box:
            return box(x);
        default:
            return triangle(x);
    }
}

double support_of(Interpolation filter) {
    return filter == Interpolation::bicubic ? 2.0 : filter == Interpolation::box ? 0.5 : 1.0;
}

// Keys' cubic convolution with a = -0.75, which has no antialias: near_weight is for |x| < 1,
// far_weight for rest. Half up, as edgevit.data.resample rounds them.
constexpr double kSharp = -0.75;

std::int32_t near_weight(double x) {
    const double weight = ((kSharp + 2.0) * x - (kSharp + 3.0)) * x * x + 1.0;
    return static_cast<std::int32_t>(std::floor(weight * kOne + 0.5));
}

std::int32_t far_weight(double x) {
    const double weight = ((kSharp * x - 5.0 * kSharp) * x + 8.0 * kSharp) * x - 4.0 * kSharp;
    return static_cast<std::int32_t>(std::floor(weight * kOne + 0.5));
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

void Resampler::Axis::prepare(int in, int out, int from, int count, Filter chosen) {
    if (in == in_size && out == out_size && from == begin && count == length && chosen == filter) {
        return;
    }
    in_size = in, out_size = out, begin = from, length = count, filter = chosen;
    if (filter.interpolation == Interpolation::area) {
        covered();
    } else if (filter.interpolation == Interpolation::nearest || !filter.antialias) {
        neighbours();
    } else {
        stretched();
    }
}

void Resampler::Axis::make_room(std::size_t most_taps) {
    taps = most_taps;
    spans.resize(static_cast<std::size_t>(length));
    weights.assign(taps * static_cast<std::size_t>(length), 0);
}

void Resampler::Axis::stretched() {
    const double scale = static_cast<double>(in_size) / out_size;
    const double stretch = std::max(scale, 1.0);
    const double support = support_of(filter.interpolation) * stretch;
    make_room(static_cast<std::size_t>(std::ceil(support)) * 2 + 1);
    row.resize(taps);
    for (int i = 0; i < length; ++i) {
        const double centre = (begin + i + 0.5) * scale;
        const int first = std::max(rounded(centre - support), 0);
        const int inputs = std::min(rounded(centre + support), in_size) - first;
        double total = 0.0;
        for (int k = 0; k < inputs; ++k) {
            const double x = (k + first - centre + 0.5) * (1.0 / stretch);
            row[static_cast<std::size_t>(k)] = weight_at(filter.interpolation, x);
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

// In units of 1 / out_size of an input pixel. What rounding lost goes to the first.
void Resampler::Axis::covered() {
    const std::int64_t in = in_size, out = out_size;
    make_room(static_cast<std::size_t>(in / out + 2));
    for (int i = 0; i < length; ++i) {
        const std::int64_t from = (begin + std::int64_t{i}) * in, to = from + in;
        const std::int64_t first = from / out, end = (to + out - 1) / out;
        std::int32_t* fixed = weights.data() + static_cast<std::size_t>(i) * taps;
        std::int32_t rest = kOne;
        for (std::int64_t k = first; k < end; ++k) {
            const std::int64_t share = std::min((k + 1) * out, to) - std::max(k * out, from);
            fixed[k - first] = static_cast<std::int32_t>((share * kOne + in / 2) / in);
            rest -= fixed[k - first];
        }
        fixed[0] += rest;
        spans[static_cast<std::size_t>(i)] = {static_cast<int>(first),
                                              static_cast<int>(end - first)};
    }
}

// Neighbours beyond an edge are the edge's pixel, which then has the weights of all of them.
void Resampler::Axis::neighbours() {
    make_room(4);
    const std::int64_t step = 2 * std::int64_t{out_size};
    for (int i = 0; i < length; ++i) {
        const std::int64_t doubled = (2 * (begin + std::int64_t{i}) + 1) * in_size;
        std::int64_t first = doubled / step;
        std::array<std::int32_t, 4> found = {kOne, 0, 0, 0};
        if (filter.interpolation != Interpolation::nearest) {
            // Above -step: one step more makes the division round down.
            const std::int64_t place = doubled - out_size + step;
            const std::int64_t rest = place % step;
            first = place / step - 1;
            if (filter.interpolation == Interpolation::bilinear) {
                found[1] = static_cast<std::int32_t>((rest * kOne + out_size) / step);
                found[0] = kOne - found[1];
            } else {
                const double t = static_cast<double>(rest) / static_cast<double>(step);
                first -= 1;
                found = {far_weight(t + 1.0), 0, near_weight(1.0 - t), far_weight(2.0 - t)};
                found[1] = kOne - found[0] - found[2] - found[3];
            }
        }
        const auto edged = [&](std::int64_t at) {
            return static_cast<int>(std::clamp<std::int64_t>(at, 0, in_size - 1));
        };
        const bool is_one = filter.interpolation == Interpolation::nearest;
        const int count = is_one ? 1 : filter.interpolation == Interpolation::bilinear ? 2 : 4;
        const Span span = {edged(first), edged(first + count - 1) - edged(first) + 1};
        spans[static_cast<std::size_t>(i)] = span;
        std::int32_t* fixed = weights.data() + static_cast<std::size_t>(i) * taps;
        for (int k = 0; k < count; ++k) {
            fixed[edged(first + k) - span.first] += found[static_cast<std::size_t>(k)];
        }
    }
}

// A number of channels known to the compiler is unrolled, and no sum leaves the registers.
template <std::size_t kChannels>
void Resampler::resize_rows_of(const ImageView& in, const Axis& axis, Image& out) {
    for (int y = 0; y < in.height; ++y) {
        std::uint8_t* target = out.row(y);
        for (int x = 0; x < axis.length; ++x, target += kChannels) {
            const Span span = axis.spans[static_cast<std::size_t>(x)];
            const std::int32_t* weight = axis.weights_of(x);
            const std::uint8_t* source =
                in.row(y) + static_cast<std::size_t>(span.first) * kChannels;
            std::array<std::int32_t, kChannels> sums;
            sums.fill(kHalf);
            for (int k = 0; k < span.count; ++k, source += kChannels) {
                for (std::size_t c = 0; c < kChannels; ++c) {
                    sums[c] += source[c] * weight[k];
                }
            }
            for (std::size_t c = 0; c < kChannels; ++c) {
                target[c] = to_pixel(sums[c]);
            }
        }
    }
}

void Resampler::resize_rows(const ImageView& in, const Axis& axis, Image& out) {
    out.reset(axis.length, in.height, in.channels);
    if (in.channels == 3) {
        resize_rows_of<3>(in, axis, out);
    } else if (in.channels == 4) {
        resize_rows_of<4>(in, axis, out);
    } else {
        resize_rows_of<1>(in, axis, out);
    }
}

// `in` begins with the first row that the axis reads.
void Resampler::resize_columns(const ImageView& in, const Axis& axis, Image& out) {
    out.reset(in.width, axis.length, in.channels);
    const std::size_t row_bytes = out.stride_bytes();
    for (int y = 0; y < axis.length; ++y) {
        const Span span = axis.spans[static_cast<std::size_t>(y)];
        const std::int32_t* weight = axis.weights_of(y);
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

void Resampler::resize(const ImageView& in, Size size, const Box& box, Filter filter, Image& out) {
    const bool is_area = filter.interpolation == Interpolation::area;
    const bool is_nearest = filter.interpolation == Interpolation::nearest;
    if (!is_area && (is_nearest || !filter.antialias)) {
        resize_at_once(in, size, box, filter, out);
    } else {
        resize_in_passes(in, size, box, filter, out);
    }
}

void Resampler::resize_at_once(const ImageView& in, Size size, const Box& box, Filter filter,
                               Image& out) {
    horizontal_.prepare(in.width, size.width, box.left, box.width, filter);
    vertical_.prepare(in.height, size.height, box.top, box.height, filter);
    out.reset(box.width, box.height, in.channels);
    const auto channels = static_cast<std::size_t>(in.channels);
    for (int y = 0; y < box.height; ++y) {
        const Span rows = vertical_.spans[static_cast<std::size_t>(y)];
        std::uint8_t* target = out.row(y);
        for (int x = 0; x < box.width; ++x) {
            const Span columns = horizontal_.spans[static_cast<std::size_t>(x)];
            for (std::size_t c = 0; c < channels; ++c, ++target) {
                std::int64_t total = std::int64_t{1} << (2 * kWeightBits - 1);
                for (int j = 0; j < rows.count; ++j) {
                    const std::uint8_t* source =
                        in.row(rows.first + j) +
                        static_cast<std::size_t>(columns.first) * channels + c;
                    std::int64_t part = 0;
                    for (int k = 0; k < columns.count; ++k, source += channels) {
                        part += std::int64_t{*source} * horizontal_.weights_of(x)[k];
                    }
                    total += part * vertical_.weights_of(y)[j];
                }
                *target = static_cast<std::uint8_t>(
                    std::clamp<std::int64_t>(total >> (2 * kWeightBits), 0, 255));
            }
        }
    }
}

void Resampler::resize_in_passes(const ImageView& in, Size size, const Box& box, Filter filter,
                                 Image& out) {
    Box input = box;  // of the input, what is read
    if (size.height != in.height) {
        vertical_.prepare(in.height, size.height, box.top, box.height, filter);
        input.top = vertical_.first_input();
        input.height = vertical_.end_input() - input.top;
    }
    if (size.width != in.width) {
        horizontal_.prepare(in.width, size.width, box.left, box.width, filter);
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
        out.reset(box.width, box.height, in.channels);
        for (int y = 0; y < box.height; ++y) {
            std::memcpy(out.row(y), source.row(y), out.stride_bytes());
        }
    }
}

}  // namespace edgevit
