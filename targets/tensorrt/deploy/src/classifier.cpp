#include "classifier.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/errors.h"
#include "trt_builder.h"

using namespace edgevit;

namespace {

void check(const std::vector<TensorSpec>& found, const TensorSpec& expected) {
    if (found.size() != 1 || !same_layout(found.front(), expected)) {
        throw InputError("the model's tensors are not those of manifest.json: expected " +
                         expected.describe());
    }
}

}  // namespace

Classifier::Classifier(const std::filesystem::path& model, const std::filesystem::path& plans)
    : manifest_(load_artifact(model)), plans_(plans),
      session_(logger_,
               tensorrt::make_plan(logger_, manifest_.artifact_path(), manifest_.artifact_sha256,
                                   tensorrt::find_gpu(), &plans_)),
      preprocessor_(manifest_), input_(manifest_.input.size_bytes()),
      output_(manifest_.output().size_bytes()), logits_(manifest_.output().elements()) {
    check(session_.inputs(), manifest_.input);
    check(session_.outputs(), manifest_.output());
    session_.allocate();
}

std::vector<Score> Classifier::classify(const ImageView& picture, std::size_t count) {
    preprocessor_.run(picture, input_.data());
    session_.set_input(input_);
    session_.invoke();
    session_.get_output(output_.data(), output_.size());
    dequantize(manifest_.output(), output_.data(), logits_.data());

    std::vector<std::size_t> order(logits_.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [this](std::size_t a, std::size_t b) { return logits_[a] > logits_[b]; });
    const double largest = logits_[order.front()];
    double sum = 0;
    for (const float logit : logits_) {
        sum += std::exp(logit - largest);
    }
    std::vector<Score> scores;
    for (std::size_t i = 0; i < std::min(count, order.size()); ++i) {
        scores.push_back({manifest_.labels[order[i]], std::exp(logits_[order[i]] - largest) / sum});
    }
    return scores;
}
