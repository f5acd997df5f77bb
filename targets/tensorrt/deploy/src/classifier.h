// One model on one GPU. An application starts here: make one, keep it, hand it pictures.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "core/bytes.h"
#include "core/image.h"
#include "core/manifest.h"
#include "core/preprocess.h"
#include "plan_cache.h"
#include "trt_logger.h"
#include "trt_session.h"

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

    // The `count` likeliest classes of an RGB picture of any size, the likeliest first; equal ones
    // in the order of the labels.
    std::vector<Score> classify(const edgevit::ImageView& picture, std::size_t count);

    // How long the last classify() kept the GPU busy.
    double last_device_us() const { return session_.last_device_us(); }

  private:
    edgevit::Manifest manifest_;
    edgevit::tensorrt::PlanCache plans_;
    edgevit::tensorrt::Logger logger_;  // outlives the session
    edgevit::tensorrt::Session session_;
    edgevit::Preprocessor preprocessor_;
    edgevit::Bytes input_;
    edgevit::Bytes output_;
    std::vector<float> logits_;
};
