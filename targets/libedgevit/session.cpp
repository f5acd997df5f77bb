#include "session.h"

#include <chrono>
#include <utility>

#include "core/errors.h"

namespace edgevit {

// A back-end may keep a reference to the manifest, so it is opened on this session's own.
Session::Session(Manifest manifest, const std::string& backend_name, const BackendOptions& options)
    : manifest_(std::move(manifest)),
      backend_name_(backend_name.empty() ? manifest_.target : backend_name),
      backend_(open_backend(backend_name_, manifest_, options)), preprocessor_(manifest_) {
    allocate();
    make_ready(options);
}

Session::Session(Manifest manifest, const std::string& backend_name,
                 std::unique_ptr<Backend> backend)
    : manifest_(std::move(manifest)), backend_name_(backend_name), backend_(std::move(backend)),
      preprocessor_(manifest_) {
    allocate();
}

void Session::allocate() {
    const std::vector<std::size_t> indices = match_tensors(*backend_, manifest_);
    input_.resize(manifest_.input.size_bytes());
    outputs_.resize(indices.size());
    for (std::size_t i = 0; i < indices.size(); ++i) {
        const TensorSpec& spec = manifest_.outputs[i];
        outputs_[i].backend_index = indices[i];
        outputs_[i].bytes.resize(spec.size_bytes());
        outputs_[i].real.resize(spec.elements());
    }
}

void Session::make_ready(const BackendOptions& options) {
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < options.warmup_runs; ++i) {
        set_input(input_);
        invoke();
    }
    state_ = State::empty;
    if (!options.log) {
        return;
    }
    options.log(LogLevel::info, "opened " + manifest_.artifact_path().string() + " with the " +
                                    backend_name_ + " back-end on " + backend_->accelerator());
    if (options.warmup_runs > 0) {
        const std::chrono::duration<double, std::milli> taken =
            std::chrono::steady_clock::now() - start;
        options.log(LogLevel::info, std::to_string(options.warmup_runs) + " warm-up runs took " +
                                        std::to_string(taken.count()) + " ms");
    }
}

void Session::preprocess(const Pixels& pixels) {
    state_ = State::empty;
    preprocessed_ = false;
    check_pixels(pixels);
    preprocess_view(preprocessor_.takes_alpha() ? as_rgba(pixels, rgb_) : as_rgb(pixels, rgb_));
}

void Session::preprocess(const Frame& frame) {
    state_ = State::empty;
    preprocessed_ = false;
    check_frame(frame);
    const bool has_alpha = frame.format == FrameFormat::rgba || frame.format == FrameFormat::bgra;
    if (preprocessor_.takes_alpha() && has_alpha) {
        throw CallError("a frame's alpha is not kept, and the model takes it: give it as an image");
    }
    preprocess_view(upright_rgb(frame, rgb_));
}

void Session::preprocess_view(const ImageView& view) {
    preprocessor_.run(view, input_.data());
    preprocessed_ = true;
}

const Bytes& Session::input() const {
    if (!preprocessed_) {
        throw CallError("there is no input tensor: no image was preprocessed");
    }
    return input_;
}

void Session::set_input(ByteView tensor) {
    if (tensor.size != input_.size()) {
        throw CallError("an input tensor of " + std::to_string(tensor.size) + " bytes, the model " +
                        "takes " + std::to_string(input_.size()));
    }
    state_ = State::empty;
    backend_->set_input(tensor);
    state_ = State::ready;
}

void Session::invoke() {
    if (state_ == State::empty) {
        throw CallError("there is nothing to run: no input was set");
    }
    state_ = State::ready;
    for (Output& output : outputs_) {
        output.is_fetched = output.is_real = false;
    }
    backend_->invoke();
    state_ = State::invoked;
}

Session::Output& Session::fetched(std::size_t index) {
    if (index >= outputs_.size()) {
        throw CallError("output " + std::to_string(index) + " is asked for, the model has " +
                        std::to_string(outputs_.size()));
    }
    if (state_ != State::invoked) {
        throw CallError("there is no output: the model was not run on the last input");
    }
    Output& output = outputs_[index];
    if (!output.is_fetched) {
        backend_->get_output(output.backend_index, output.bytes.data(), output.bytes.size());
        output.is_fetched = true;
    }
    return output;
}

const Bytes& Session::output_bytes(std::size_t index) { return fetched(index).bytes; }

const std::vector<float>& Session::output(std::size_t index) {
    Output& output = fetched(index);
    if (!output.is_real) {
        dequantize(manifest_.outputs[index], output.bytes.data(), output.real.data());
        output.is_real = true;
    }
    return output.real;
}

std::size_t Session::output_index(const std::string& name) const {
    std::string known;
    for (std::size_t i = 0; i < manifest_.outputs.size(); ++i) {
        if (manifest_.outputs[i].name == name) {
            return i;
        }
        known += (known.empty() ? "'" : ", '") + manifest_.outputs[i].name + "'";
    }
    throw InputError(manifest_.artifact_path().string() + ": has no output '" + name +
                     "'; it has " + known);
}

}  // namespace edgevit
