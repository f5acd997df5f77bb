#include "core/scores.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace edgevit {

bool are_finite(const float* values, std::size_t count) {
    return std::all_of(values, values + count, [](float value) { return std::isfinite(value); });
}

void rank(const float* values, std::size_t count, std::size_t best,
          std::vector<std::size_t>& order) {
    order.resize(count);
    std::iota(order.begin(), order.end(), std::size_t{0});
    const auto end = order.begin() + static_cast<std::ptrdiff_t>(std::min(best, count));
    std::partial_sort(order.begin(), end, order.end(), [values](std::size_t a, std::size_t b) {
        return values[a] > values[b] || (values[a] == values[b] && a < b);
    });
}

void softmax(const float* logits, std::size_t count, double* out) {
    if (count == 0) {
        return;
    }
    const double largest = *std::max_element(logits, logits + count);
    double total = 0;
    for (std::size_t i = 0; i < count; ++i) {
        out[i] = std::exp(logits[i] - largest);
        total += out[i];
    }
    std::for_each(out, out + count, [total](double& value) { value /= total; });
}

}  // namespace edgevit
