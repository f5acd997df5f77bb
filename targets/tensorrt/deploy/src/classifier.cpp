#include "classifier.h"

using namespace edgevit;

namespace {

BackendOptions options_with(const std::filesystem::path& plans) {
    BackendOptions options;
    options.runtime_options["plan_cache"] = plans.string();
    return options;
}

}  // namespace

Classifier::Classifier(const std::filesystem::path& model, const std::filesystem::path& plans)
    : session_(load_artifact(model), "tensorrt", options_with(plans)), classification_(session_) {}

std::vector<Score> Classifier::classify(const Pixels& picture, std::size_t count) {
    session_.preprocess(picture);
    session_.set_input(session_.input());
    session_.invoke();
    const std::vector<double>& probabilities = classification_.probabilities();
    std::vector<Score> scores;
    for (const std::size_t index : classification_.top_k(count)) {
        scores.push_back({session_.manifest().labels[index], probabilities[index]});
    }
    return scores;
}
