// The classes of the last inference: what the first output of a classification says.
#pragma once

#include <cstddef>
#include <vector>

#include "session.h"

namespace edgevit {

// Raises InputError when the artifact's task is not classification.
void check_classes(const Manifest& manifest);

// Reads one session, which must outlive it. Not for two threads at once; allocates nothing after it
// was made.
class Classification {
  public:
    // Raises what check_classes() does.
    explicit Classification(Session& session);

    // One real number a class: logits, or the probabilities of an artifact that has none. Raises
    // InputError when one is NaN or infinite, CallError before an inference.
    const std::vector<float>& read_scores();

    bool are_probabilities() const { return session_.manifest().answers_probabilities(); }

    // The `count` best classes, best first, of equal ones the lower index first; all classes where
    // there are fewer. Valid until the next call. Raises what read_scores() does.
    const std::vector<std::size_t>& top_k(std::size_t count);

    // The softmax of the logits, or the artifact's probabilities as they are. Valid until the
    // next call. Raises what read_scores() does.
    const std::vector<double>& probabilities();

  private:
    Session& session_;
    std::vector<std::size_t> order_;
    std::vector<std::size_t> best_;
    std::vector<double> probabilities_;
};

}  // namespace edgevit
