#include "evaluate.h"

#include <algorithm>
#include <chrono>

#include "core/errors.h"
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
    Evaluator(Session& session, const Dataset& dataset, const ReferenceLogits* reference,
              const EvaluationOptions& options)
        : session_(session), manifest_(session.manifest()), dataset_(dataset),
          reference_(reference), options_(options),
          indices_(spread(dataset.entries().size(), options.limit)),
          classes_(static_cast<std::size_t>(manifest_.classes)) {}

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
    // Runs `step`; what it says against the input is told together with the image's name.
    template <typename Step>
    void naming(const Dataset::Entry& entry, const Step& step) {
        try {
            step();
        } catch (const InputError& error) {
            throw InputError(dataset_.path().string() + ": " + entry.path + ": " + error.what());
        }
    }

    void preprocess(const Dataset::Entry& entry) {
        naming(entry, [this] {
            decode_image(file_, image_);
            session_.preprocess(pixels_of(image_));
        });
    }

    void warm_up(const Dataset::Entry& entry) {
        preprocess(entry);
        result_.first_input = session_.input();
        for (int i = 0; i < options_.warmup; ++i) {
            session_.set_input(session_.input());
            session_.invoke();
            naming(entry, [this] { session_.read_logits(); });
        }
    }

    void infer(const Dataset::Entry& entry) {
        const Clock::time_point start = Clock::now();
        preprocess(entry);
        session_.set_input(session_.input());
        const Clock::time_point before = Clock::now();
        session_.invoke();
        const Clock::time_point after = Clock::now();
        if (const std::optional<double> device_us = session_.backend().last_device_us()) {
            result_.device_us.push_back(*device_us);
        }
        naming(entry, [this] { session_.read_logits(); });
        result_.invoke_us.push_back(microseconds(before, after));
        result_.end_to_end_us.push_back(microseconds(start, Clock::now()));
    }

    void count(const Dataset::Entry& entry) {
        const std::vector<std::size_t>& best = session_.top_k(5);
        const auto found = std::find(best.begin(), best.end(), entry.label);
        ++result_.count;
        result_.top1 += found == best.begin() ? 1 : 0;
        result_.top5 += found != best.end() ? 1 : 0;
        const std::vector<float>& logits = session_.read_logits();
        compare(entry, logits);
        if (logits_writer_) {
            logits_writer_->append(logits.data(), logits.size() * sizeof(float));
            predictions_.push_back(static_cast<std::int64_t>(best.front()));
        }
        if (inputs_writer_) {
            inputs_writer_->append(session_.input().data(), session_.input().size());
        }
    }

    void compare(const Dataset::Entry& entry, const std::vector<float>& logits) {
        if (reference_ == nullptr) {
            return;
        }
        const float* program = reference_->find(reference_->logits, entry.path);
        if (program == nullptr) {
            return;  // recorded on a part of the set: the comparison's count says on how much
        }
        result_.program->add(logits.data(), program, classes_);
        if (result_.float_net) {
            result_.float_net->add(
                logits.data(), reference_->find(*reference_->float_logits, entry.path), classes_);
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

    Session& session_;
    const Manifest& manifest_;
    const Dataset& dataset_;
    const ReferenceLogits* reference_;
    const EvaluationOptions& options_;
    std::vector<std::size_t> indices_;
    std::size_t classes_;
    Bytes file_;
    Image image_;
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

Evaluation evaluate(Session& session, const Dataset& dataset, const ReferenceLogits* reference,
                    const EvaluationOptions& options) {
    return Evaluator(session, dataset, reference, options).run();
}

}  // namespace edgevit
