#include "core/half.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

using namespace edgevit;

TEST_CASE("a half is the float of the same value") {
    CHECK(half_to_float(0x0000) == 0.0F);
    CHECK(std::signbit(half_to_float(0x8000)));
    CHECK(half_to_float(0x3c00) == 1.0F);
    CHECK(half_to_float(0xc100) == -2.5F);
    CHECK(half_to_float(0xfc00) == -std::numeric_limits<float>::infinity());
    CHECK(std::isnan(half_to_float(0x7e00)));
    CHECK(std::isnan(half_to_float(0x7c01)));
}

TEST_CASE("every half has the value of its definition, and comes back") {
    int wrong = 0, not_back = 0;
    for (std::uint32_t bits = 0; bits < 65536; ++bits) {
        const auto half = static_cast<std::uint16_t>(bits);
        const int exponent = half >> 10 & 0x1f, fraction = half & 0x3ff;
        const float value = half_to_float(half);
        if (exponent == 0x1f) {
            const bool right = fraction == 0 ? std::isinf(value) : std::isnan(value);
            wrong += right && std::signbit(value) == (half >> 15 != 0) ? 0 : 1;
            not_back += fraction == 0 && float_to_half(value) != half ? 1 : 0;
            not_back += fraction != 0 && !std::isnan(half_to_float(float_to_half(value))) ? 1 : 0;
            continue;
        }
        const double magnitude =
            exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(fraction + 1024, exponent - 25);
        wrong += static_cast<double>(std::fabs(value)) == magnitude &&
                         std::signbit(value) == (half >> 15 != 0)
                     ? 0
                     : 1;
        not_back += float_to_half(value) == half ? 0 : 1;
    }
    CHECK(wrong == 0);
    CHECK(not_back == 0);
}

TEST_CASE("between two halves the nearest is taken, in the middle the even one") {
    int wrong = 0;
    for (std::uint16_t low = 0; low < 0x7bff; ++low) {
        const auto high = static_cast<std::uint16_t>(low + 1);
        // Exact: a half has 11 bits, the middle of two neighbours 12.
        const float middle = (half_to_float(low) + half_to_float(high)) / 2;
        const std::uint16_t even = low % 2 == 0 ? low : high;
        const float infinity = std::numeric_limits<float>::infinity();
        for (const float sign : {1.0F, -1.0F}) {
            const int sign_bit = sign < 0 ? 0x8000 : 0;
            wrong += float_to_half(sign * middle) == (sign_bit | even) ? 0 : 1;
            wrong += float_to_half(sign * std::nextafter(middle, 0.0F)) == (sign_bit | low) ? 0 : 1;
            wrong +=
                float_to_half(sign * std::nextafter(middle, infinity)) == (sign_bit | high) ? 0 : 1;
        }
    }
    CHECK(wrong == 0);
}

TEST_CASE("beyond the ends are infinity and zero") {
    CHECK(float_to_half(65519.996F) == 0x7bff);
    CHECK(float_to_half(65520.0F) == 0x7c00);
    CHECK(float_to_half(65536.0F) == 0x7c00);
    CHECK(float_to_half(-std::numeric_limits<float>::max()) == 0xfc00);
    CHECK(float_to_half(std::ldexp(1.0F, -25)) == 0);
    CHECK(float_to_half(std::nextafter(std::ldexp(1.0F, -25), 1.0F)) == 1);
    CHECK(float_to_half(std::numeric_limits<float>::denorm_min()) == 0);
    CHECK(float_to_half(-0.0F) == 0x8000);
    CHECK((float_to_half(std::numeric_limits<float>::quiet_NaN()) & 0x7e00) == 0x7e00);
}
