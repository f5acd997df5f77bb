#include "evaluate.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "core/errors.h"
#include "core/preprocess.h"
#include "decode.h"
#include "safetensors.h"

namespace edgevit {
namespace {

using Clock = std::chrono::steady_clock;

double microseconds(Clock::time_point from, Clock::time_point to) {
    return std::chrono::duration<double, std::micro>(to - from).count();
}

std::string joined_paths(const Dataset& dataset, const std::vector<std::size_t>& indices) {
    std::string text;
    for (const std::size_t index : indices) {
        text += (text.empty() ? "" : "\n") + dataset.entries()[index].path;
    }
    return text;
}

std::map<std::string, std::string> file_metadata(const Manifest& manifest, const Dataset& dataset) {
    return {{"schema_version", "1"},
            {"dataset_sha256", dataset.sha256()},
            {"artifact_sha256", manifest.artifact_sha256}};
}

const char* safetensors_name(DType dtype) {
    switch (dtype) {
        case DType::int8:
            return "I8";
        case DType::uint8:
            return "U8";
        case DType::float16:
            return "F16";
        case DType::float32:
            return "F32";
    }
    return "";
}

class Evaluator {
  public:
    Evaluator(Backend& backend, const Manifest& manifest, const Dataset& dataset,
              const ReferenceLogits* reference, const EvaluationOptions& options)
        : backend_(backend), manifest_(manifest), dataset_(dataset), reference_(reference),
          options_(options), indices_(spread(dataset.entries().size(), options.limit)),
          classes_(static_cast<std::size_t>(manifest.classes)), preprocessor_(manifest),
          input_(manifest.input.size_bytes()), output_(manifest.output.size_bytes()),
          logits_(classes_) {}

    Evaluation run() {
        open_outputs();
        if (reference_ != nullptr) {
            const float step = manifest_.output.scale.value_or(0.0F);
            result_.program.emplace(step);
            if (reference_->float_logits) {
                result_.float_net.emplace(step);
            }
        }
        for (std::size_t done = 0; done < indices_.size(); ++done) {
            const Dataset::Entry& entry = dataset_.entries()[indices_[done]];
            dataset_.read(entry, file_);
            if (done == 0) {
                warm_up(entry);
            }
            infer(entry);
            count(entry);
            if (options_.progress) {
                options_.progress(done + 1, indices_.size());
            }
        }
        close_outputs();
        return std::move(result_);
    }

  private:
    void preprocess(const Dataset::Entry& entry) {
        try {
            decode_image(file_, image_);
            preprocessor_.run(image_.view(), input_.data());
        } catch (const InputError& error) {
            throw InputError(dataset_.path().string() + ": " + entry.path + ": " + error.what());
        }
    }

    void warm_up(const Dataset::Entry& entry) {
        preprocess(entry);
        result_.first_input = input_;
        for (int i = 0; i < options_.warmup; ++i) {
            backend_.set_input(input_);
            backend_.invoke();
            backend_.get_output(output_.data(), output_.size());
        }
    }

    void infer(const Dataset::Entry& entry) {
        const Clock::time_point start = Clock::now();
        preprocess(entry);
        backend_.set_input(input_);
        const Clock::time_point before = Clock::now();
        backend_.invoke();
        const Clock::time_point after = Clock::now();
        if (const std::optional<double> device_us = backend_.last_device_us()) {
            result_.device_us.push_back(*device_us);
        }
        backend_.get_output(output_.data(), output_.size());
        dequantize(manifest_.output, output_.data(), logits_.data());
        result_.invoke_us.push_back(microseconds(before, after));
        result_.end_to_end_us.push_back(microseconds(start, Clock::now()));
    }

    void count(const Dataset::Entry& entry) {
        if (!std::all_of(logits_.begin(), logits_.end(),
                         [](float x) { return std::isfinite(x); })) {
            throw InputError(manifest_.artifact_path().string() + ": its logits for " + entry.path +
                             " hold NaN or infinity");
        }
        const std::int64_t rank = rank_of(logits_.data(), classes_, entry.label);
        ++result_.count;
        result_.top1 += rank == 0 ? 1 : 0;
        result_.top5 += rank < 5 ? 1 : 0;
        compare(entry);
        if (logits_writer_) {
            logits_writer_->append(logits_.data(), logits_.size() * sizeof(float));
            predictions_.push_back(argmax(logits_.data(), classes_));
        }
        if (inputs_writer_) {
            inputs_writer_->append(input_.data(), input_.size());
        }
    }

    void compare(const Dataset::Entry& entry) {
        if (reference_ == nullptr) {
            return;
        }
        const float* program = reference_->find(reference_->logits, entry.path);
        if (program == nullptr) {
            return;  // recorded on a part of the set: the comparison's count says on how much
        }
        result_.program->add(logits_.data(), program, classes_);
        if (result_.float_net) {
            result_.float_net->add(
                logits_.data(), reference_->find(*reference_->float_logits, entry.path), classes_);
        }
    }

    void open_outputs() {
        const auto images = static_cast<std::int64_t>(indices_.size());
        const auto path_bytes = static_cast<std::int64_t>(joined_paths(dataset_, indices_).size());
        const TensorDeclaration paths = {"paths", "U8", {path_bytes}};
        if (!options_.logits_file.empty()) {
            logits_writer_.emplace(
                options_.logits_file,
                std::vector<TensorDeclaration>{{"logits", "F32", {images, manifest_.classes}},
                                               {"labels", "I64", {images}},
                                               {"predictions", "I64", {images}},
                                               paths},
                file_metadata(manifest_, dataset_));
        }
        if (!options_.inputs_file.empty()) {
            std::vector<std::int64_t> shape = manifest_.input.shape;
            shape.front() = images;
            const TensorDeclaration inputs = {"inputs", safetensors_name(manifest_.input.dtype),
                                              shape};
            inputs_writer_.emplace(options_.inputs_file,
                                   std::vector<TensorDeclaration>{inputs, paths},
                                   file_metadata(manifest_, dataset_));
        }
    }

    void close_outputs() {
        const std::string paths = joined_paths(dataset_, indices_);
        if (logits_writer_) {
            std::vector<std::int64_t> labels;
            for (const std::size_t index : indices_) {
                labels.push_back(static_cast<std::int64_t>(dataset_.entries()[index].label));
            }
            logits_writer_->append(labels.data(), labels.size() * sizeof(std::int64_t));
            logits_writer_->append(predictions_.data(), predictions_.size() * sizeof(std::int64_t));
            logits_writer_->append(paths.data(), paths.size());
            logits_writer_->commit();
        }
        if (inputs_writer_) {
            inputs_writer_->append(paths.data(), paths.size());
            inputs_writer_->commit();
        }
    }

    Backend& backend_;
    const Manifest& manifest_;
    const Dataset& dataset_;
    const ReferenceLogits* reference_;
    const EvaluationOptions& options_;
    std::vector<std::size_t> indices_;
    std::size_t classes_;
    Preprocessor preprocessor_;
    Bytes file_;
    Image image_;
    Bytes input_;
    Bytes output_;
    std::vector<float> logits_;
    std::vector<std::int64_t> predictions_;
    std::optional<SafetensorsWriter> logits_writer_;
    std::optional<SafetensorsWriter> inputs_writer_;
    Evaluation result_;
};

}  // namespace

std::vector<std::size_t> spread(std::size_t size, std::optional<std::size_t> count) {
    const std::size_t wanted = std::min(count.value_or(size), size);
    std::vector<std::size_t> indices(wanted);
    for (std::size_t i = 0; i < wanted; ++i) {
        indices[i] = i * size / wanted;
    }
    return indices;
}

Evaluation evaluate(Backend& backend, const Manifest& manifest, const Dataset& dataset,
                    const ReferenceLogits* reference, const EvaluationOptions& options) {
    return Evaluator(backend, manifest, dataset, reference, options).run();
}

}  // namespace edgevit
