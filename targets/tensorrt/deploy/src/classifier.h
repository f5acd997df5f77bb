// One model on one GPU. An application starts here: make one, keep it, hand it pictures.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "classification.h"
#include "core/pixels.h"
#include "session.h"

struct Score {
    std::string label;
    double probability = 0;
};

// Not for two threads at once: make one for each.
class Classifier {
  public:
    // `model`: the folder with manifest.json and model.onnx. `plans`: an existing folder that keeps
    // the compiled plan. Raises edgevit::Error (core/errors.h) with what is wrong and what to do.
    Classifier(const std::filesystem::path& model, const std::filesystem::path& plans);

    // The `count` likeliest classes of a picture of any size, the likeliest first; equal ones in
    // the order of the labels. Raises edgevit::InputError for a picture that cannot be used, and
    // for an answer that is not finite.
    std::vector<Score> classify(const edgevit::Pixels& picture, std::size_t count);

    // How long the last classify() kept the GPU busy.
    double last_device_us() { return session_.backend().last_device_us().value_or(0); }

  private:
    edgevit::Session session_;
    edgevit::Classification classification_;
};
