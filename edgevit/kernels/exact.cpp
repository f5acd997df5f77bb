// Integer steps of a quantized program on the CPU, each one pass over its data.
//
// Tensors are int8, channels last: (N, H, W, C). Sums are int32 and exact; every float operation is
// one IEEE float32 operation of one element, in the order of the torch definition, so that results
// are equal to it bit for bit and depend on no thread count and no vector width. The build turns
// off the contraction of a product and a sum into one rounding.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

constexpr int64_t kSmall = 32768;  // values below which starting threads costs more than it saves

// A float32 result to the grid: half to even, then the zero-point.
struct Grid {
    float low;  // least and largest result, less the zero-point
    float high;
    int32_t zero_point;
};

inline int8_t on_grid(float value, Grid grid) {
    const float bounded = std::min(std::max(value, grid.low), grid.high);
    return static_cast<int8_t>(static_cast<int32_t>(std::rint(bounded)) + grid.zero_point);
}

inline Grid grid_of(int32_t zero_point) {
    return {static_cast<float>(-128 - zero_point), static_cast<float>(127 - zero_point),
            zero_point};
}

// The loops stand in functions of their own: their operands are then known not to change while a
// byte, which could be any variable's, is written.
void requantize_row(const int32_t* __restrict sums, const int32_t* __restrict bias,
                    const float* __restrict scale, Grid grid, int8_t* __restrict out,
                    int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
        out[i] = on_grid(static_cast<float>(sums[i] + bias[i]) * scale[i], grid);
    }
}

struct Sum {
    float scale_a, scale_b, inverse;
    int32_t zero_a, zero_b;
    Grid grid;
};

void add_block(const int8_t* __restrict a, const int8_t* __restrict b, Sum of,
               int8_t* __restrict out, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
        const float real_a = static_cast<float>(a[i] - of.zero_a) * of.scale_a;
        const float real_b = static_cast<float>(b[i] - of.zero_b) * of.scale_b;
        out[i] = on_grid((real_a + real_b) * of.inverse, of.grid);
    }
}

struct Product {
    float scale;
    int32_t zero_a, zero_b;
    Grid grid;
};

void multiply_row(const int8_t* __restrict a, const int8_t* __restrict b, Product of,
                  int8_t* __restrict out, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
        const int32_t product = (a[i] - of.zero_a) * (b[i] - of.zero_b);
        out[i] = on_grid(static_cast<float>(product) * of.scale, of.grid);
    }
}

template <int Count>
inline void requantize(const int32_t* __restrict sums, const float* __restrict scale, Grid grid,
                       int8_t* __restrict out) {
    for (int i = 0; i < Count; ++i) {
        out[i] = on_grid(static_cast<float>(sums[i]) * scale[i], grid);
    }
}

struct Window {
    int64_t height, width, channels;  // of the input
    int64_t out_height, out_width;
    int64_t kernel_y, kernel_x;
    int64_t stride_y, stride_x;
    int64_t pad_y, pad_x;
    int64_t dilation_y, dilation_x;
};

struct Depthwise {
    const int8_t* x;
    const int16_t* weight;  // (kernel_y, kernel_x, C)
    const int32_t* bias;
    const float* scale;
    int8_t* out;
    int32_t zero_point;  // of the input
    Grid grid;
    Window window;
};

// Where the kernel lies on the image at one output position: offsets into the image and the weight.
struct Tap {
    int64_t value, weight;
};

void taps_of(const Window& w, int64_t y, int64_t x, std::vector<Tap>& taps) {
    taps.clear();
    for (int64_t ky = 0; ky < w.kernel_y; ++ky) {
        const int64_t row = y * w.stride_y - w.pad_y + ky * w.dilation_y;
        for (int64_t kx = 0; kx < w.kernel_x; ++kx) {
            const int64_t column = x * w.stride_x - w.pad_x + kx * w.dilation_x;
            if (row >= 0 && row < w.height && column >= 0 && column < w.width) {
                taps.push_back(
                    {(row * w.width + column) * w.channels, (ky * w.kernel_x + kx) * w.channels});
            }
        }
    }
}

template <int Count>
struct Lanes {
    typedef int8_t Bytes __attribute__((vector_size(Count)));
    typedef int16_t Halves __attribute__((vector_size(2 * Count)));
    typedef int32_t Words __attribute__((vector_size(4 * Count)));
};

// `Count` channels of one output position, in registers. A product of two int8, one of them less
// its zero-point, is within 255 * 127, which int16 holds.
template <int Count>
inline void depthwise(const Depthwise& d, const int8_t* image, const std::vector<Tap>& taps,
                      int64_t channel, int8_t* out) {
    using Bytes = typename Lanes<Count>::Bytes;
    using Halves = typename Lanes<Count>::Halves;
    using Words = typename Lanes<Count>::Words;
    Words sums;
    std::memcpy(&sums, d.bias + channel, sizeof(sums));
    const auto zero = static_cast<int16_t>(d.zero_point);
    for (const Tap& tap : taps) {
        Bytes values;
        Halves weight;
        std::memcpy(&values, image + tap.value + channel, sizeof(values));
        std::memcpy(&weight, d.weight + tap.weight + channel, sizeof(weight));
        const Halves products = (__builtin_convertvector(values, Halves) - zero) * weight;
        sums += __builtin_convertvector(products, Words);
    }
    int32_t found[Count];
    std::memcpy(found, &sums, sizeof(found));
    requantize<Count>(found, d.scale + channel, d.grid, out + channel);
}

void depthwise_row(const Depthwise& d, int64_t image, int64_t y, std::vector<Tap>& taps) {
    const Window& w = d.window;
    const int8_t* source = d.x + image * w.height * w.width * w.channels;
    int8_t* out = d.out + (image * w.out_height + y) * w.out_width * w.channels;
    for (int64_t x = 0; x < w.out_width; ++x, out += w.channels) {
        taps_of(w, y, x, taps);
        int64_t c = 0;
        for (; c + 16 <= w.channels; c += 16) {
            depthwise<16>(d, source, taps, c, out);
        }
        for (; c + 4 <= w.channels; c += 4) {
            depthwise<4>(d, source, taps, c, out);
        }
        for (; c < w.channels; ++c) {
            depthwise<1>(d, source, taps, c, out);
        }
    }
}

// The values under the kernel at one output position, those outside of the image `zero_point`.
void columns_of(const int8_t* image, const Window& w, int64_t y, int64_t x, int8_t zero_point,
                int8_t* out) {
    const int64_t run = w.kernel_x * w.channels;
    const int64_t left = x * w.stride_x - w.pad_x;
    const bool inside = w.dilation_x == 1 && left >= 0 && left + w.kernel_x <= w.width;
    for (int64_t ky = 0; ky < w.kernel_y; ++ky, out += run) {
        const int64_t row = y * w.stride_y - w.pad_y + ky * w.dilation_y;
        if (row < 0 || row >= w.height) {
            std::memset(out, zero_point, run);
            continue;
        }
        const int8_t* line = image + row * w.width * w.channels;
        if (inside) {
            std::memcpy(out, line + left * w.channels, run);
            continue;
        }
        for (int64_t kx = 0; kx < w.kernel_x; ++kx) {
            const int64_t column = left + kx * w.dilation_x;
            int8_t* target = out + kx * w.channels;
            if (column < 0 || column >= w.width) {
                std::memset(target, zero_point, w.channels);
            } else {
                std::memcpy(target, line + column * w.channels, w.channels);
            }
        }
    }
}

void lookup_block(const int8_t* x, const int8_t* table, int8_t* out, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
        out[i] = table[static_cast<uint8_t>(x[i])];
    }
}

#if defined(__x86_64__)
// The table in four registers of 64 bytes.
__attribute__((target("avx512f,avx512bw,avx512vbmi"))) void lookup_block_vbmi(const int8_t* x,
                                                                              const int8_t* table,
                                                                              int8_t* out,
                                                                              int64_t count) {
    const __m512i t0 = _mm512_loadu_si512(table);
    const __m512i t1 = _mm512_loadu_si512(table + 64);
    const __m512i t2 = _mm512_loadu_si512(table + 128);
    const __m512i t3 = _mm512_loadu_si512(table + 192);
    int64_t i = 0;
    for (; i + 64 <= count; i += 64) {
        const __m512i index = _mm512_loadu_si512(x + i);
        const __m512i low = _mm512_permutex2var_epi8(t0, index, t1);
        const __m512i high = _mm512_permutex2var_epi8(t2, index, t3);
        const __m512i found = _mm512_mask_blend_epi8(_mm512_movepi8_mask(index), low, high);
        _mm512_storeu_si512(out + i, found);
    }
    lookup_block(x + i, table, out + i, count - i);
}

bool has_vbmi() {
    static const bool found = __builtin_cpu_supports("avx512vbmi") != 0;
    return found;
}
#endif

// body(begin, end) over parts of 0 to `count`, each of at least kSmall / `cost` of them.
template <typename F>
void parts(int64_t count, int64_t cost, int threads, const F& body) {
    const int64_t least = std::max<int64_t>(1, kSmall / std::max<int64_t>(1, cost));
    const int64_t wanted = std::min<int64_t>(threads, (count + least - 1) / least);
    if (wanted <= 1) {
        body(0, count);
        return;
    }
#pragma omp parallel for num_threads(static_cast<int>(wanted)) schedule(static)
    for (int64_t part = 0; part < wanted; ++part) {
        body(count * part / wanted, count * (part + 1) / wanted);
    }
}

}  // namespace

extern "C" {

// sums and out (rows, channels), bias and scale (channels).
void edgevit_requantize(const int32_t* sums, const int32_t* bias, const float* scale, float low,
                        float high, int32_t zero_point, int8_t* out, int64_t rows, int64_t channels,
                        int threads) {
    const Grid grid{low, high, zero_point};
    parts(rows, channels, threads, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
            const int64_t at = row * channels;
            requantize_row(sums + at, bias, scale, grid, out + at, channels);
        }
    });
}

// window: height, width, channels, output height and width, then kernel, stride, padding and
// dilation, each vertical before horizontal.
void edgevit_depthwise(const int8_t* x, const int16_t* weight, const int32_t* bias,
                       const float* scale, int32_t x_zero_point, float low, float high,
                       int32_t zero_point, int8_t* out, int64_t images, const int64_t* window,
                       int threads) {
    Window w{};
    std::memcpy(&w, window, sizeof(w));
    const Depthwise d{x, weight, bias, scale, out, x_zero_point, {low, high, zero_point}, w};
    const int64_t cost = w.out_width * w.channels * w.kernel_y * w.kernel_x;
    parts(images * w.out_height, cost, threads, [&](int64_t begin, int64_t end) {
        std::vector<Tap> taps;
        for (int64_t row = begin; row < end; ++row) {
            depthwise_row(d, row / w.out_height, row % w.out_height, taps);
        }
    });
}

// out (images * output height * output width, kernel height * kernel width * channels).
void edgevit_columns(const int8_t* x, int32_t zero_point, int8_t* out, int64_t images,
                     const int64_t* window, int threads) {
    Window w{};
    std::memcpy(&w, window, sizeof(w));
    const int64_t depth = w.kernel_y * w.kernel_x * w.channels;
    parts(images * w.out_height, w.out_width * depth, threads, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
            const int8_t* image = x + row / w.out_height * w.height * w.width * w.channels;
            for (int64_t column = 0; column < w.out_width; ++column) {
                columns_of(image, w, row % w.out_height, column, static_cast<int8_t>(zero_point),
                           out + (row * w.out_width + column) * depth);
            }
        }
    });
}

// table (256), in the order of the values as unsigned bytes.
void edgevit_lookup(const int8_t* x, const int8_t* table, int8_t* out, int64_t count, int threads) {
    parts(count, 1, threads, [&](int64_t begin, int64_t end) {
#if defined(__x86_64__)
        if (has_vbmi()) {
            lookup_block_vbmi(x + begin, table, out + begin, end - begin);
            return;
        }
#endif
        lookup_block(x + begin, table, out + begin, end - begin);
    });
}

// scales: of a, of b, and 1 / the result's; zeros: of a, of b and of the result.
void edgevit_add(const int8_t* a, const int8_t* b, const float* scales, const int32_t* zeros,
                 int8_t* out, int64_t count, int threads) {
    const Sum operands{scales[0], scales[1], scales[2], zeros[0], zeros[1], grid_of(zeros[2])};
    parts(count, 1, threads, [&](int64_t begin, int64_t end) {
        add_block(a + begin, b + begin, operands, out + begin, end - begin);
    });
}

// a (images, positions, channels); b the same, or (images, 1, channels) where `broadcasts`. zeros:
// of a, of b and of the result. float32 holds every product of two int8.
void edgevit_mul(const int8_t* a, const int8_t* b, float scale, const int32_t* zeros, int8_t* out,
                 int64_t images, int64_t positions, int64_t channels, int broadcasts, int threads) {
    const Product product{scale, zeros[0], zeros[1], grid_of(zeros[2])};
    parts(images * positions, channels, threads, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
            const int8_t* right = b + (broadcasts != 0 ? row / positions : row) * channels;
            multiply_row(a + row * channels, right, product, out + row * channels, channels);
        }
    });
}

// The sums over height and width: x (images, positions, channels), out (images, channels).
void edgevit_sums(const int8_t* x, int32_t* out, int64_t images, int64_t positions,
                  int64_t channels, int threads) {
    parts(images, positions * channels, threads, [&](int64_t begin, int64_t end) {
        for (int64_t image = begin; image < end; ++image) {
            int32_t* sums = out + image * channels;
            std::fill_n(sums, channels, 0);
            for (int64_t p = 0; p < positions; ++p) {
                const int8_t* values = x + (image * positions + p) * channels;
                for (int64_t c = 0; c < channels; ++c) {
                    sums[c] += values[c];
                }
            }
        }
    });
}

}  // extern "C"
