#include "classification.h"

#include <algorithm>

#include "core/errors.h"
#include "core/scores.h"

namespace edgevit {

void check_classes(const Manifest& manifest) {
    if (!manifest.is_classification()) {
        throw InputError(manifest.artifact_path().string() + ": its task is '" + manifest.task +
                         "', which has no classes: read its outputs");
    }
}

Classification::Classification(Session& session) : session_(session) {
    check_classes(session.manifest());
    const auto classes = static_cast<std::size_t>(session.manifest().classes);
    order_.resize(classes);
    best_.reserve(classes);
    probabilities_.resize(classes);
}

const std::vector<float>& Classification::read_scores() {
    const std::vector<float>& logits = session_.output(0);
    if (!are_finite(logits.data(), logits.size())) {
        throw InputError(session_.manifest().artifact_path().string() +
                         ": its logits or probabilities hold NaN or infinity");
    }
    return logits;
}

const std::vector<std::size_t>& Classification::top_k(std::size_t count) {
    const std::vector<float>& logits = read_scores();
    const std::size_t best = std::min(count, logits.size());
    rank(logits.data(), logits.size(), best, order_);
    best_.assign(order_.begin(), order_.begin() + static_cast<std::ptrdiff_t>(best));
    return best_;
}

const std::vector<double>& Classification::probabilities() {
    const std::vector<float>& logits = read_scores();
    if (are_probabilities()) {
        std::copy(logits.begin(), logits.end(), probabilities_.begin());
    } else {
        softmax(logits.data(), logits.size(), probabilities_.data());
    }
    return probabilities_;
}

}  // namespace edgevit
