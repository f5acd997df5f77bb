// From one number a class to the best classes and to probabilities: one rule for every application.
#pragma once

#include <cstddef>
#include <vector>

namespace edgevit {

// True when no value is NaN or infinite.
bool are_finite(const float* values, std::size_t count);

// The first `best` of the indices 0 to count - 1 in `order`: the largest value first, of equal ones
// the lower index first. `order` becomes `count` long, what lies behind `best` is unspecified.
void rank(const float* values, std::size_t count, std::size_t best,
          std::vector<std::size_t>& order);

// The softmax of finite logits, in double precision: `out` has `count` of them. They sum to 1.
void softmax(const float* logits, std::size_t count, double* out);

}  // namespace edgevit
