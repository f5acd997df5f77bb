// IEEE half precision (binary16) as bits, and the float of the same value. Integers only, so that
// every machine and compiler gives the same.
#pragma once

#include <cstdint>
#include <cstring>

namespace edgevit {

// Exact; subnormals and infinities too. A NaN stays a NaN, with the top bits of its payload.
inline float half_to_float(std::uint16_t half) noexcept {
    const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000) << 16;
    std::uint32_t exponent = half >> 10 & 0x1f;
    std::uint32_t fraction = half & 0x3ff;
    std::uint32_t bits = sign;
    if (exponent == 0x1f) {
        bits |= 0x7f800000 | fraction << 13;
    } else if (exponent != 0) {
        bits |= (exponent + 112) << 23 | fraction << 13;
    } else if (fraction != 0) {
        // A subnormal half is a normal float: shift until the leading bit is the implicit one.
        exponent = 113;
        for (; (fraction & 0x400) == 0; fraction <<= 1) {
            --exponent;
        }
        bits |= exponent << 23 | (fraction & 0x3ff) << 13;
    }
    float value = 0;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

// The nearest half, of two equally near the one with an even last bit; from 65520 on infinity. A
// NaN becomes a quiet NaN.
inline std::uint16_t float_to_half(float value) noexcept {
    std::uint32_t bits = 0;
    std::memcpy(&bits, &value, sizeof bits);
    const std::uint32_t sign = bits >> 16 & 0x8000;
    const std::uint32_t magnitude = bits & 0x7fffffff;
    std::uint32_t half = 0;
    if (magnitude > 0x7f800000) {
        half = 0x7e00 | (magnitude >> 13 & 0x3ff);
    } else if (magnitude >= 0x47800000) {  // 65536 and above
        half = 0x7c00;
    } else if (magnitude >= 0x38800000) {  // 2^-14, the least normal half
        // A carry out of the fraction goes into the exponent, and from the largest to infinity.
        const std::uint32_t odd = magnitude >> 13 & 1;
        half = (magnitude - 0x38000000 + 0xfff + odd) >> 13;
    } else if (magnitude >= 0x33000000) {  // 2^-25: below, everything rounds to zero
        const std::uint32_t shift = 126 - (magnitude >> 23);
        const std::uint32_t fraction = (magnitude & 0x7fffff) | 0x800000;
        const std::uint32_t rest = fraction & ((1U << shift) - 1);
        const std::uint32_t middle = 1U << (shift - 1);
        half = fraction >> shift;
        half += rest > middle || (rest == middle && (half & 1) != 0) ? 1 : 0;
    }
    return static_cast<std::uint16_t>(sign | half);
}

}  // namespace edgevit
