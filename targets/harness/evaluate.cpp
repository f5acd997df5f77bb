#include "evaluate.h"

#include <algorithm>
#include <chrono>

#include "classification.h"
#include "core/errors.h"
#include "decode.h"
#include "kinds.h"
#include "machine.h"
#include "safetensors.h"
#include "samples.h"

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
          classes_(static_cast<std::size_t>(manifest_.classes)) {
        if (manifest_.is_classification()) {
            classification_.emplace(session);
        } else {
            samples_.emplace(session, options.maps_last);
        }
    }

    Evaluation run() {
        open_outputs();
        if (reference_ != nullptr) {
            const float step = manifest_.logits().scale.value_or(0.0F);
            result_.program.emplace(step);
            if (reference_->float_logits) {
                result_.float_net.emplace(step);
            }
        }
        if (options_.early_stop) {
            result_.early_stop.emplace(plan_early_stop());
        }
        first_pass();
        result_.peak_memory_bytes = peak_memory_bytes();
        close_outputs();
        if (long_run_) {
            further_passes();
            result_.long_run = long_run_->report(result_.invoke_us);
        }
        return std::move(result_);
    }

  private:
    void first_pass() {
        for (std::size_t done = 0; done < indices_.size() && !result_.stopped_early; ++done) {
            const Dataset::Entry& entry = dataset_.entries()[indices_[done]];
            dataset_.read(entry, file_);
            if (done == 0) {
                warm_up(entry);
                if (options_.long_run) {
                    long_run_.emplace(*options_.long_run);
                }
                start_ = Clock::now();
            }
            infer(entry);
            count(entry);
            if (options_.progress) {
                options_.progress(done + 1, indices_.size());
            }
            result_.stopped_early = done + 1 < indices_.size() && is_decided();
        }
        indices_.resize(static_cast<std::size_t>(result_.count));
    }

    // The same work an inference as in the first pass, so that all buckets are alike.
    void further_passes() {
        for (std::size_t i = 0; !result_.stopped_early && !long_run_->is_over(); ++i) {
            const Dataset::Entry& entry = dataset_.entries()[indices_[i % indices_.size()]];
            dataset_.read(entry, file_);
            infer(entry);
            if (options_.long_progress) {
                options_.long_progress(microseconds(start_, Clock::now()) / 1e6,
                                       options_.long_run->min_duration_s);
            }
        }
    }

    // A gate that fails ends the run; one that holds leaves a long run its time.
    bool is_decided() const {
        const Verdict verdict = result_.early_stop ? result_.early_stop->verdict() : Verdict::open;
        return verdict == Verdict::fails || (verdict == Verdict::holds && !long_run_);
    }

    // The net that the accuracy gate compares with, as edgevit.measure.validate chooses it.
    const float* compared_logits(const Dataset::Entry& entry) const {
        return reference_->find(
            reference_->float_logits ? *reference_->float_logits : reference_->logits, entry.path);
    }

    EarlyStop plan_early_stop() const {
        if (reference_ == nullptr) {
            throw InputError(
                "an early stop needs reference logits for these images: name them with "
                "--reference");
        }
        std::int64_t images = 0;
        std::int64_t reference_right = 0;
        for (const std::size_t index : indices_) {
            const Dataset::Entry& entry = dataset_.entries()[index];
            if (const float* logits = compared_logits(entry)) {
                ++images;
                const auto label = static_cast<std::int64_t>(entry.label);
                reference_right += argmax(logits, classes_) == label ? 1 : 0;
            }
        }
        return {*options_.early_stop, images, reference_right};
    }

    // Runs `step`; what it says against the input is told together with the image's name.
    template <typename Step>
    void naming(const Dataset::Entry& entry, const Step& step) {
        try {
            step();
        } catch (const InputError& error) {
            throw InputError(printable(dataset_.path().string()) + ": " + entry.path + ": " +
                             error.what());
        }
    }

    void preprocess(const Dataset::Entry& entry) {
        naming(entry, [this] {
            decode_image(file_, image_,
                         session_.manifest().preprocessing.channels == Channels::rgba);
            session_.preprocess(pixels_of(image_));
        });
    }

    void read_outputs() {
        if (classification_) {
            classification_->read_scores();
        } else {
            samples_->read();
        }
    }

    void warm_up(const Dataset::Entry& entry) {
        preprocess(entry);
        result_.first_input = session_.input();
        for (int i = 0; i < options_.warmup; ++i) {
            session_.set_input(session_.input());
            session_.invoke();
            naming(entry, [this] { read_outputs(); });
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
        naming(entry, [this] { read_outputs(); });
        result_.invoke_us.push_back(microseconds(before, after));
        const Clock::time_point end = Clock::now();
        result_.end_to_end_us.push_back(microseconds(start, end));
        if (long_run_) {
            long_run_->add(microseconds(start_, end) / 1e6);
        }
    }

    void count(const Dataset::Entry& entry) {
        ++result_.count;
        if (classification_) {
            count_classes(entry);
        } else if (logits_writer_) {
            const std::vector<float>& samples = samples_->read();
            logits_writer_->append(samples.data(), samples.size() * sizeof(float));
        }
        if (inputs_writer_) {
            inputs_writer_->append(session_.input().data(), session_.input().size());
        }
    }

    void count_classes(const Dataset::Entry& entry) {
        const std::vector<std::size_t>& best = classification_->top_k(5);
        const auto found = std::find(best.begin(), best.end(), entry.label);
        const bool is_right = found == best.begin();
        result_.top1 += is_right ? 1 : 0;
        result_.top5 += found != best.end() ? 1 : 0;
        const std::vector<float>& logits = classification_->read_scores();
        compare(entry, logits, best.front(), is_right);
        if (logits_writer_) {
            logits_writer_->append(logits.data(), logits.size() * sizeof(float));
            predictions_.push_back(static_cast<std::int64_t>(best.front()));
        }
    }

    void compare(const Dataset::Entry& entry, const std::vector<float>& logits,
                 std::size_t prediction, bool is_right) {
        if (reference_ == nullptr) {
            return;
        }
        const float* program = reference_->find(reference_->logits, entry.path);
        if (program == nullptr) {
            return;  // recorded on a part of the set: the comparison's count says on how much
        }
        result_.program->add(logits.data(), program, classes_);
        if (result_.early_stop) {
            const auto ours = static_cast<std::int64_t>(prediction);
            result_.early_stop->add(is_right, argmax(program, classes_) == ours);
        }
        if (result_.float_net) {
            result_.float_net->add(
                logits.data(), reference_->find(*reference_->float_logits, entry.path), classes_);
        }
    }

    TensorDeclaration declare_paths() const {
        const auto bytes = static_cast<std::int64_t>(joined_paths(dataset_, indices_).size());
        return {"paths", "U8", {bytes}};
    }

    std::vector<TensorDeclaration> declare_logits() const {
        const auto images = static_cast<std::int64_t>(indices_.size());
        if (samples_) {
            const auto values = static_cast<std::int64_t>(samples_->size());
            return {{"samples", "F32", {images, values}}, declare_paths()};
        }
        return {{"logits", "F32", {images, manifest_.classes}},
                {"labels", "I64", {images}},
                {"predictions", "I64", {images}},
                declare_paths()};
    }

    std::vector<TensorDeclaration> declare_inputs() const {
        std::vector<std::int64_t> shape = manifest_.input.shape;
        shape.front() = static_cast<std::int64_t>(indices_.size());
        return {{"inputs", safetensors_name(manifest_.input.dtype), shape}, declare_paths()};
    }

    void open_outputs() {
        const auto metadata = file_metadata(manifest_, dataset_);
        if (!options_.logits_file.empty()) {
            logits_writer_.emplace(options_.logits_file, declare_logits(), metadata);
        }
        if (!options_.inputs_file.empty()) {
            inputs_writer_.emplace(options_.inputs_file, declare_inputs(), metadata);
        }
    }

    void close_outputs() {
        const std::string paths = joined_paths(dataset_, indices_);
        if (logits_writer_ && samples_) {
            logits_writer_->append(paths.data(), paths.size());
            commit(*logits_writer_, declare_logits());
        } else if (logits_writer_) {
            std::vector<std::int64_t> labels;
            labels.reserve(indices_.size());
            for (const std::size_t index : indices_) {
                labels.push_back(static_cast<std::int64_t>(dataset_.entries()[index].label));
            }
            logits_writer_->append(labels.data(), labels.size() * sizeof(std::int64_t));
            logits_writer_->append(predictions_.data(), predictions_.size() * sizeof(std::int64_t));
            logits_writer_->append(paths.data(), paths.size());
            commit(*logits_writer_, declare_logits());
        }
        if (inputs_writer_) {
            inputs_writer_->append(paths.data(), paths.size());
            commit(*inputs_writer_, declare_inputs());
        }
    }

    void commit(SafetensorsWriter& writer, const std::vector<TensorDeclaration>& tensors) const {
        if (result_.stopped_early) {
            writer.redeclare(tensors);
        }
        writer.commit();
    }

    Session& session_;
    std::optional<Classification> classification_;  // of a classification
    std::optional<OutputSamples> samples_;          // of any other task
    const Manifest& manifest_;
    const Dataset& dataset_;
    const ReferenceLogits* reference_;
    const EvaluationOptions& options_;
    std::vector<std::size_t> indices_;  // of the images to run; after the first pass, of those run
    std::size_t classes_;
    Bytes file_;
    Image image_;
    std::vector<std::int64_t> predictions_;
    std::optional<SafetensorsWriter> logits_writer_;
    std::optional<SafetensorsWriter> inputs_writer_;
    std::optional<LongRun> long_run_;
    Clock::time_point start_;  // of the first timed inference
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
