#include "session.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "core/errors.h"

namespace edgevit {

// A back-end may keep a reference to the manifest, so it is opened on this session's own.
Session::Session(Manifest manifest, const std::string& backend_name, const BackendOptions& options)
    : manifest_(std::move(manifest)),
      backend_name_(backend_name.empty() ? manifest_.target : backend_name),
      backend_(open_backend(backend_name_, manifest_, options)), preprocessor_(manifest_) {
    allocate();
}

Session::Session(Manifest manifest, const std::string& backend_name,
                 std::unique_ptr<Backend> backend)
    : manifest_(std::move(manifest)), backend_name_(backend_name), backend_(std::move(backend)),
      preprocessor_(manifest_) {
    allocate();
}

void Session::allocate() {
    check_tensors(*backend_, manifest_);
    input_.resize(manifest_.input.size_bytes());
    output_.resize(manifest_.output().size_bytes());
    logits_.resize(manifest_.output().elements());
    order_.resize(logits_.size());
    best_.reserve(logits_.size());
}

void Session::preprocess(const Pixels& pixels) {
    state_ = State::empty;
    preprocessed_ = false;
    check_pixels(pixels);
    preprocessor_.run(as_rgb(pixels, rgb_), input_.data());
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
    backend_->invoke();
    state_ = State::invoked;
}

const std::vector<float>& Session::read_logits() {
    if (state_ == State::answered) {
        return logits_;
    }
    if (state_ != State::invoked) {
        throw CallError("there are no logits: the model was not run on the last input");
    }
    backend_->get_output(output_.data(), output_.size());
    dequantize(manifest_.output(), output_.data(), logits_.data());
    if (!std::all_of(logits_.begin(), logits_.end(), [](float x) { return std::isfinite(x); })) {
        throw InputError(manifest_.artifact_path().string() + ": its logits hold NaN or infinity");
    }
    state_ = State::answered;
    return logits_;
}

const std::vector<std::size_t>& Session::top_k(std::size_t count) {
    const std::vector<float>& logits = read_logits();
    const auto comes_first = [&logits](std::size_t a, std::size_t b) {
        return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
    };
    std::iota(order_.begin(), order_.end(), std::size_t{0});
    const auto end = order_.begin() + static_cast<std::ptrdiff_t>(std::min(count, order_.size()));
    std::partial_sort(order_.begin(), end, order_.end(), comes_first);
    best_.assign(order_.begin(), end);
    return best_;
}

}  // namespace edgevit
