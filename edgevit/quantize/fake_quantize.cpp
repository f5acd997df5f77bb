// Fake quantization for training: one read and one write forward, one byte an element kept for
// backward.
//
// PyTorch's and NNCF's kernels keep the float input (4 bytes an element) and pass over it several
// times. Here the forward keeps an int8 code: -128 clipped below, 127 clipped above, otherwise the
// rounding residual (round(x/s) - x/s, in [-0.5, 0.5]) times 252, which is all that the gradients
// of LSQ (arXiv 1902.08153) and LSQ+ (arXiv 2004.09576) need. The residual's own rounding changes
// the scale's gradient by at most |g| / 504 an element; the input's gradient is exact.
//
// Sums run over fixed blocks and are added in block order, so results do not depend on the threads.

#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <tuple>
#include <vector>

namespace {

using at::Tensor;

constexpr int64_t kBlock = 16384;
constexpr int64_t kPiece = 1024;  // stays in the first cache between two loops over it
constexpr float kResidualSteps = 252.0F;
constexpr int8_t kClippedLow = -128;
constexpr int8_t kClippedHigh = 127;

struct Grid {
    float scale;
    float inverse;
    float zero_point;
    float low;  // lowest and highest code, relative to the zero-point
    float high;
};

Grid grid_of(float scale, float zero_point, int64_t quant_min, int64_t quant_max) {
    const float zero = std::nearbyint(zero_point);
    // In double and then narrowed, as quantized_decomposed.quantize_per_tensor does it.
    const auto inverse = static_cast<float>(1.0 / static_cast<double>(scale));
    return {scale, inverse, zero, static_cast<float>(quant_min) - zero,
            static_cast<float>(quant_max) - zero};
}

// Half to even for |v| < 2^22; callers clamp first. Unlike nearbyint it vectorises everywhere.
inline float round_half_even(float v) {
    constexpr float kMagic = 12582912.0F;
    return (v + kMagic) - kMagic;
}

// `y` may be `x`.
void forward_block(const float* x, float* y, int8_t* __restrict code, int64_t count, Grid g) {
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) {
        const float v = x[i] * g.inverse;
        const float bounded = std::min(std::max(v, g.low - 1.0F), g.high + 1.0F);
        const float rounded = round_half_even(bounded);
        const float residual = round_half_even((rounded - bounded) * kResidualSteps);
        const bool below = rounded < g.low;
        const bool above = rounded > g.high;
        y[i] = (below ? g.low : above ? g.high : rounded) * g.scale;
        code[i] = below ? kClippedLow : above ? kClippedHigh : static_cast<int8_t>(residual);
    }
}

struct Sums {
    double scale = 0;
    double zero_point = 0;

    void operator+=(const Sums& other) {
        scale += other.scale;
        zero_point += other.zero_point;
    }
};

// `grad_x` may be `grad`.
Sums backward_piece(const float* grad, const int8_t* __restrict code, float* grad_x, int64_t count,
                    Grid g) {
    float scale_sum = 0;
    float clipped_sum = 0;
#pragma omp simd reduction(+ : scale_sum, clipped_sum)
    for (int64_t i = 0; i < count; ++i) {
        const bool below = code[i] == kClippedLow;
        const bool above = code[i] == kClippedHigh;
        const float v = grad[i];
        const float inside = static_cast<float>(code[i]) * (1.0F / kResidualSteps);
        const float slope = below ? g.low : (above ? g.high : inside);
        const float clipped = (below | above) ? v : 0.0F;
        grad_x[i] = v - clipped;
        scale_sum += v * slope;
        clipped_sum += clipped;
    }
    return {scale_sum, -static_cast<double>(clipped_sum) * g.scale};
}

Sums backward_block(const float* grad, const int8_t* code, float* grad_x, int64_t count, Grid g) {
    Sums sums;
    for (int64_t at = 0; at < count; at += kPiece) {
        sums += backward_piece(grad + at, code + at, grad_x + at, std::min(kPiece, count - at), g);
    }
    return sums;
}

// Channels are the leading dimension (weights), or one channel for the whole tensor (activations).
// A block never spans two channels.
struct Blocks {
    int64_t channels;
    int64_t per_channel;
    int64_t blocks_per_channel;

    Blocks(const Tensor& x, const Tensor& scale)
        : channels(scale.numel()), per_channel(channels == 0 ? 0 : x.numel() / channels),
          blocks_per_channel((per_channel + kBlock - 1) / kBlock) {
        TORCH_CHECK(channels == 1 || x.size(0) == channels, "one scale an output channel expected");
    }

    template <typename F>
    void each(const F& body) const {
        const int64_t total = channels * blocks_per_channel;
        const int64_t grain =
            std::max<int64_t>(1, kBlock / std::max<int64_t>(1, std::min(per_channel, kBlock)));
        at::parallel_for(0, total, grain, [&](int64_t begin, int64_t end) {
            for (int64_t b = begin; b < end; ++b) {
                const int64_t channel = b / blocks_per_channel;
                const int64_t start = (b % blocks_per_channel) * kBlock;
                body(b, channel, channel * per_channel + start,
                     std::min(kBlock, per_channel - start));
            }
        });
    }
};

std::tuple<Tensor, Tensor> forward_cpu(const Tensor& x, const Tensor& scale,
                                       const Tensor& zero_point, int64_t quant_min,
                                       int64_t quant_max, bool in_place) {
    TORCH_CHECK(x.scalar_type() == at::kFloat && scale.scalar_type() == at::kFloat,
                "float32 expected");
    const bool dense =
        x.is_non_overlapping_and_dense() && (scale.numel() == 1 || x.is_contiguous());
    const Tensor input = dense ? x : x.contiguous();
    Tensor output = in_place ? input : at::empty_like(input);
    Tensor code = at::empty_like(input, input.options().dtype(at::kChar));
    const Blocks blocks(input, scale);
    const Tensor s = scale.contiguous();
    const Tensor z = zero_point.contiguous();
    const float* scales = s.const_data_ptr<float>();
    const float* zeros = z.const_data_ptr<float>();
    const float* from = input.const_data_ptr<float>();
    auto* to = output.mutable_data_ptr<float>();
    auto* codes = code.mutable_data_ptr<int8_t>();
    blocks.each([&](int64_t, int64_t channel, int64_t at, int64_t count) {
        const Grid g =
            grid_of(scales[channel], zeros[z.numel() == 1 ? 0 : channel], quant_min, quant_max);
        forward_block(from + at, to + at, codes + at, count, g);
    });
    if (in_place && !dense) {
        x.copy_(output);
    }
    return {in_place ? x : output, code};
}

// The output's gradient with the memory layout of what the forward kept, and where the input's
// goes: to the same place if nothing else holds it, which saves the system from finding fresh pages
// for every large tensor. The engine moves its only reference into the call, and another tensor of
// the same memory would be another count.
struct Gradients {
    Tensor output;
    Tensor input;

    Gradients(const Tensor& given, const Tensor& code) {
        const bool alone = given.use_count() == 1 && given.storage().use_count() == 1;
        output = input = given;
        if (given.strides() != code.strides()) {
            output = input = at::empty_like(code, code.options().dtype(at::kFloat)).copy_(given);
        } else if (!alone) {
            input = at::empty_like(given);
        }
    }
};

std::tuple<Tensor, Tensor, Tensor> backward_cpu(const Tensor& grad_output, const Tensor& code,
                                                const Tensor& scale, const Tensor& zero_point,
                                                int64_t quant_min, int64_t quant_max) {
    Gradients grad(grad_output, code);
    Tensor grad_scale = at::zeros_like(scale, at::MemoryFormat::Contiguous);
    Tensor grad_zero = at::zeros_like(zero_point, at::MemoryFormat::Contiguous);
    const Blocks blocks(code, scale);
    std::vector<Sums> partial(static_cast<size_t>(blocks.channels * blocks.blocks_per_channel));
    const Tensor s = scale.contiguous();
    const Tensor z = zero_point.contiguous();
    const float* scales = s.const_data_ptr<float>();
    const float* zeros = z.const_data_ptr<float>();
    const float* from = grad.output.const_data_ptr<float>();
    const auto* codes = code.const_data_ptr<int8_t>();
    auto* to = grad.input.mutable_data_ptr<float>();
    blocks.each([&](int64_t block, int64_t channel, int64_t at, int64_t count) {
        const Grid g =
            grid_of(scales[channel], zeros[z.numel() == 1 ? 0 : channel], quant_min, quant_max);
        partial[static_cast<size_t>(block)] =
            backward_block(from + at, codes + at, to + at, count, g);
    });
    auto* scale_out = grad_scale.mutable_data_ptr<float>();
    auto* zero_out = grad_zero.mutable_data_ptr<float>();
    for (int64_t channel = 0; channel < blocks.channels; ++channel) {
        Sums sum;
        for (int64_t b = 0; b < blocks.blocks_per_channel; ++b) {
            sum += partial[static_cast<size_t>(channel * blocks.blocks_per_channel + b)];
        }
        scale_out[channel] = static_cast<float>(sum.scale);
        zero_out[z.numel() == 1 ? 0 : channel] += static_cast<float>(sum.zero_point);
    }
    return {grad.input, grad_scale, grad_zero};
}

Grid grid_of(const Tensor& scale, const Tensor& zero_point, int64_t quant_min, int64_t quant_max) {
    TORCH_CHECK(scale.numel() == 1 && zero_point.numel() == 1, "one scale for the tensor expected");
    return grid_of(*scale.const_data_ptr<float>(), *zero_point.const_data_ptr<float>(), quant_min,
                   quant_max);
}

class FakeQuantize : public torch::autograd::Function<FakeQuantize> {
  public:
    static Tensor forward(torch::autograd::AutogradContext* context, const Tensor& x,
                          const Tensor& scale, const Tensor& zero_point, int64_t quant_min,
                          int64_t quant_max, bool in_place) {
        at::AutoDispatchBelowADInplaceOrView guard;
        auto [output, code] = forward_cpu(x, scale, zero_point, quant_min, quant_max, in_place);
        if (in_place) {
            context->mark_dirty({x});
        }
        context->save_for_backward({code, scale, zero_point});
        context->saved_data["quant_min"] = quant_min;
        context->saved_data["quant_max"] = quant_max;
        return output;
    }

    static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                   const torch::autograd::variable_list& grads) {
        const auto saved = context->get_saved_variables();
        auto [grad_x, grad_scale, grad_zero] = backward_cpu(
            grads[0], saved[0], saved[1], saved[2], context->saved_data["quant_min"].toInt(),
            context->saved_data["quant_max"].toInt());
        return {grad_x, grad_scale, grad_zero, Tensor(), Tensor(), Tensor()};
    }
};

// GELU between two quantizers, by tables: its input has 256 values, so its quantized output, and
// every factor of the gradients, has no more. Exactly what the three calls in turn give, at the
// cost of one pass and of two bytes an element kept: the first quantizer's code and the int8 value.
constexpr int kValues = 256;
constexpr int kOffset = 128;

struct GeluTables {
    Grid in;
    Grid out;
    std::array<float, kValues> value;  // the quantized output
    std::array<float, kValues> slope;  // GELU's
    std::array<float, kValues> code;   // the output quantizer's, as floats

    GeluTables(const Tensor& scale, const Tensor& zero_point, const Tensor& out_scale,
               const Tensor& out_zero_point, int64_t quant_min, int64_t quant_max)
        : in(grid_of(scale, zero_point, quant_min, quant_max)),
          out(grid_of(out_scale, out_zero_point, quant_min, quant_max)) {
        // Channels-last as the nets' tensors are: torch takes another GELU for contiguous ones,
        // whose last bit is another.
        const auto options = at::TensorOptions(at::kFloat);
        Tensor reals = at::empty({1, 2, 8, kValues / 16},
                                 options.memory_format(at::MemoryFormat::ChannelsLast));
        auto* real = reals.mutable_data_ptr<float>();
        for (int i = 0; i < kValues; ++i) {
            real[i] = (static_cast<float>(i - kOffset) - in.zero_point) * in.scale;
        }
        const Tensor outputs = at::gelu(reals);
        const Tensor slopes = at::gelu_backward(at::ones_like(reals), reals);
        std::array<int8_t, kValues> codes{};
        forward_block(outputs.const_data_ptr<float>(), value.data(), codes.data(), kValues, out);
        std::copy_n(slopes.const_data_ptr<float>(), kValues, slope.begin());
        std::copy_n(codes.begin(), kValues, code.begin());
    }
};

// to[i] = table[places[i]].
void look_up(const std::array<float, kValues>& table, const uint8_t* __restrict places,
             float* __restrict to, int64_t count) {
    int64_t i = 0;
#ifdef __AVX512F__
    // The table lies in registers, 32 values in a pair of them: a gather takes three times as long.
    std::array<__m512, kValues / 16> row;
    for (size_t r = 0; r < row.size(); ++r) {
        row[r] = _mm512_loadu_ps(table.data() + 16 * r);
    }
    for (; i + 16 <= count; i += 16) {
        const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(places + i));
        const __m512i at = _mm512_cvtepu8_epi32(bytes);
        const __mmask16 bit5 = _mm512_test_epi32_mask(at, _mm512_set1_epi32(32));
        const __mmask16 bit6 = _mm512_test_epi32_mask(at, _mm512_set1_epi32(64));
        const __mmask16 bit7 = _mm512_test_epi32_mask(at, _mm512_set1_epi32(128));
        std::array<__m512, 4> part;
        for (size_t k = 0; k < 4; ++k) {
            part[k] =
                _mm512_mask_blend_ps(bit5, _mm512_permutex2var_ps(row[4 * k], at, row[4 * k + 1]),
                                     _mm512_permutex2var_ps(row[4 * k + 2], at, row[4 * k + 3]));
        }
        const __m512 low = _mm512_mask_blend_ps(bit6, part[0], part[1]);
        const __m512 high = _mm512_mask_blend_ps(bit6, part[2], part[3]);
        _mm512_storeu_ps(to + i, _mm512_mask_blend_ps(bit7, low, high));
    }
#endif
    for (; i < count; ++i) {
        to[i] = table[places[i]];
    }
}

// `y` may be `x`.
void forward_gelu_piece(const float* x, float* y, int8_t* __restrict code,
                        uint8_t* __restrict place, int64_t count, const GeluTables& t) {
    const Grid g = t.in;
    int nans = 0;
#pragma omp simd reduction(+ : nans)
    for (int64_t i = 0; i < count; ++i) {
        const float v = x[i] * g.inverse;
        const float bounded = std::min(std::max(v, g.low - 1.0F), g.high + 1.0F);
        const float rounded = round_half_even(bounded);
        const float residual = round_half_even((rounded - bounded) * kResidualSteps);
        const bool below = rounded < g.low;
        const bool above = rounded > g.high;
        const float kept = below ? g.low : above ? g.high : rounded;
        // The narrowing keeps a NaN, which is no place at all, inside of the table.
        place[i] = static_cast<uint8_t>(static_cast<int>(kept + g.zero_point) + kOffset);
        code[i] = below ? kClippedLow : above ? kClippedHigh : static_cast<int8_t>(residual);
        nans += v == v ? 0 : 1;
    }
    if (nans == 0) {
        look_up(t.value, place, y, count);
        return;
    }
    for (int64_t i = 0; i < count; ++i) {
        y[i] = x[i] == x[i] ? t.value[place[i]] : x[i];
    }
}

struct GeluSums {
    Sums in;
    Sums out;

    void operator+=(const GeluSums& other) {
        in += other.in;
        out += other.out;
    }
};

// `grad_x` may be `grad`; at most kPiece elements.
GeluSums backward_gelu_piece(const float* grad, const int8_t* __restrict code,
                             const uint8_t* __restrict place, float* grad_x, int64_t count,
                             const GeluTables& t) {
    std::array<float, kPiece> inner;
    std::array<float, kPiece> found;
    std::array<int8_t, kPiece> out_code;
    look_up(t.code, place, found.data(), count);
    for (int64_t i = 0; i < count; ++i) {
        out_code[i] = static_cast<int8_t>(found[i]);
    }
    const Sums out = backward_piece(grad, out_code.data(), inner.data(), count, t.out);
    look_up(t.slope, place, found.data(), count);
    for (int64_t i = 0; i < count; ++i) {
        inner[i] *= found[i];
    }
    return {backward_piece(inner.data(), code, grad_x, count, t.in), out};
}

GeluSums backward_gelu_block(const float* grad, const int8_t* code, const uint8_t* place,
                             float* grad_x, int64_t count, const GeluTables& t) {
    GeluSums sums;
    for (int64_t at = 0; at < count; at += kPiece) {
        sums += backward_gelu_piece(grad + at, code + at, place + at, grad_x + at,
                                    std::min(kPiece, count - at), t);
    }
    return sums;
}

// x becomes the result; it returns the codes and the int8 values, the latter from 0 to 255.
std::tuple<Tensor, Tensor> forward_gelu_cpu(Tensor& x, const GeluTables& tables) {
    TORCH_CHECK(x.scalar_type() == at::kFloat, "float32 expected");
    Tensor y = x.is_non_overlapping_and_dense() ? x : x.contiguous();
    Tensor code = at::empty_like(y, y.options().dtype(at::kChar));
    Tensor place = at::empty_like(y, y.options().dtype(at::kByte));
    auto* data = y.mutable_data_ptr<float>();
    auto* codes = code.mutable_data_ptr<int8_t>();
    auto* places = place.mutable_data_ptr<uint8_t>();
    at::parallel_for(0, y.numel(), kBlock, [&](int64_t begin, int64_t end) {
        for (int64_t at = begin; at < end; at += kPiece) {
            forward_gelu_piece(data + at, data + at, codes + at, places + at,
                               std::min(kPiece, end - at), tables);
        }
    });
    if (!y.is_same(x)) {
        x.copy_(y);
    }
    return {code, place};
}

class FakeQuantizeGelu : public torch::autograd::Function<FakeQuantizeGelu> {
  public:
    static Tensor forward(torch::autograd::AutogradContext* context, Tensor& x, const Tensor& scale,
                          const Tensor& zero_point, const Tensor& out_scale,
                          const Tensor& out_zero_point, int64_t quant_min, int64_t quant_max) {
        at::AutoDispatchBelowADInplaceOrView guard;
        const GeluTables tables(scale, zero_point, out_scale, out_zero_point, quant_min, quant_max);
        auto [code, place] = forward_gelu_cpu(x, tables);
        context->mark_dirty({x});
        context->save_for_backward({code, place, scale, zero_point, out_scale, out_zero_point});
        context->saved_data["quant_min"] = quant_min;
        context->saved_data["quant_max"] = quant_max;
        return x;
    }

    static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                   const torch::autograd::variable_list& grads) {
        const auto saved = context->get_saved_variables();
        const Tensor& code = saved[0];
        const GeluTables tables(saved[2], saved[3], saved[4], saved[5],
                                context->saved_data["quant_min"].toInt(),
                                context->saved_data["quant_max"].toInt());
        Gradients grad(grads[0], code);
        const auto* from = grad.output.const_data_ptr<float>();
        const auto* codes = code.const_data_ptr<int8_t>();
        const auto* places = saved[1].const_data_ptr<uint8_t>();
        auto* to = grad.input.mutable_data_ptr<float>();
        const int64_t count = code.numel();
        std::vector<GeluSums> partial(static_cast<size_t>((count + kBlock - 1) / kBlock));
        at::parallel_for(
            0, static_cast<int64_t>(partial.size()), 1, [&](int64_t begin, int64_t end) {
                for (int64_t b = begin; b < end; ++b) {
                    const int64_t at = b * kBlock;
                    partial[static_cast<size_t>(b)] =
                        backward_gelu_block(from + at, codes + at, places + at, to + at,
                                            std::min(kBlock, count - at), tables);
                }
            });
        GeluSums sum;
        for (const GeluSums& part : partial) {
            sum += part;
        }
        return {grad.input,
                at::full_like(saved[2], sum.in.scale),
                at::full_like(saved[3], sum.in.zero_point),
                at::full_like(saved[4], sum.out.scale),
                at::full_like(saved[5], sum.out.zero_point),
                Tensor(),
                Tensor()};
    }
};

Tensor& fake_quantize_gelu_autograd(Tensor& x, const Tensor& scale, const Tensor& zero_point,
                                    const Tensor& out_scale, const Tensor& out_zero_point,
                                    int64_t quant_min, int64_t quant_max) {
    FakeQuantizeGelu::apply(x, scale, zero_point, out_scale, out_zero_point, quant_min, quant_max);
    return x;
}

Tensor& fake_quantize_gelu_cpu(Tensor& x, const Tensor& scale, const Tensor& zero_point,
                               const Tensor& out_scale, const Tensor& out_zero_point,
                               int64_t quant_min, int64_t quant_max) {
    forward_gelu_cpu(
        x, GeluTables(scale, zero_point, out_scale, out_zero_point, quant_min, quant_max));
    return x;
}

Tensor fake_quantize_autograd(const Tensor& x, const Tensor& scale, const Tensor& zero_point,
                              int64_t quant_min, int64_t quant_max) {
    return FakeQuantize::apply(x, scale, zero_point, quant_min, quant_max, false);
}

Tensor& fake_quantize_in_place_autograd(Tensor& x, const Tensor& scale, const Tensor& zero_point,
                                        int64_t quant_min, int64_t quant_max) {
    FakeQuantize::apply(x, scale, zero_point, quant_min, quant_max, true);
    return x;
}

Tensor fake_quantize_cpu(const Tensor& x, const Tensor& scale, const Tensor& zero_point,
                         int64_t quant_min, int64_t quant_max) {
    return std::get<0>(forward_cpu(x, scale, zero_point, quant_min, quant_max, false));
}

Tensor& fake_quantize_in_place_cpu(Tensor& x, const Tensor& scale, const Tensor& zero_point,
                                   int64_t quant_min, int64_t quant_max) {
    forward_cpu(x, scale, zero_point, quant_min, quant_max, true);
    return x;
}

}  // namespace

TORCH_LIBRARY(edgevit, library) {
    library.def(
        "fake_quantize(Tensor x, Tensor scale, Tensor zero_point, int quant_min, int quant_max) -> Tensor");
    library.def(
        "fake_quantize_(Tensor(a!) x, Tensor scale, Tensor zero_point, int quant_min, int quant_max) -> Tensor(a!)");
    library.def(
        "fake_quantize_gelu_(Tensor(a!) x, Tensor scale, Tensor zero_point, Tensor out_scale, Tensor out_zero_point, int quant_min, int quant_max) -> Tensor(a!)");
}

TORCH_LIBRARY_IMPL(edgevit, CPU, library) {
    library.impl("fake_quantize_gelu_", fake_quantize_gelu_cpu);
    library.impl("fake_quantize", fake_quantize_cpu);
    library.impl("fake_quantize_", fake_quantize_in_place_cpu);
}

TORCH_LIBRARY_IMPL(edgevit, AutogradCPU, library) {
    library.impl("fake_quantize_gelu_", fake_quantize_gelu_autograd);
    library.impl("fake_quantize", fake_quantize_autograd);
    library.impl("fake_quantize_", fake_quantize_in_place_autograd);
}
