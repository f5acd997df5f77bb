// What is kept of an image's outputs, where they are no classes: of each as many values as
// edgevit.tasks.features keeps, at the same places, so that Python can compare them.
#pragma once

#include <cstddef>
#include <vector>

#include "session.h"

namespace edgevit {

// Reads one session, which must outlive it.
class OutputSamples {
  public:
    // `maps_last`: outputs that are maps have their channels last, [1, H, W, C]. The places are
    // those of [1, C, H, W].
    OutputSamples(Session& session, bool maps_last);

    // Of the last inference: kFeatureSamples values of each output, one output after another.
    // Valid until the next call. Raises InputError when a number of an output is NaN or infinite.
    const std::vector<float>& read();

    std::size_t size() const { return values_.size(); }

  private:
    Session& session_;
    std::vector<std::vector<std::size_t>> places_;  // of each output's samples
    std::vector<float> values_;
};

}  // namespace edgevit
