// An opened artifact: from a picture to its outputs. The C API, the harness and the app templates
// run this one: what is validated is what ships.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "backend.h"
#include "core/bytes.h"
#include "core/frame.h"
#include "core/image.h"
#include "core/manifest.h"
#include "core/pixels.h"
#include "core/preprocess.h"

namespace edgevit {

// Not for two threads at once. A picture whose size and format were seen before costs no allocation
// here; what the runtime allocates is its own.
class Session {
  public:
    // An empty name stands for the manifest's target. Raises what open_backend() does, and
    // InputError when the artifact's tensors are not the manifest's.
    Session(Manifest manifest, const std::string& backend_name, const BackendOptions& options);

    // With a back-end that is open already. Raises InputError as above.
    Session(Manifest manifest, const std::string& backend_name, std::unique_ptr<Backend> backend);

    const Manifest& manifest() const { return manifest_; }
    const std::string& backend_name() const { return backend_name_; }
    Backend& backend() { return *backend_; }

    // The four steps of a frame. Each raises CallError when the one before it was left out or
    // failed, and Error with the runtime's own message.

    // Resizes, crops and looks the pixels up in the manifest's table. Raises InputError for a
    // picture that cannot be used, CallError for a stride too small.
    void preprocess(const Pixels& pixels);

    // The same of a camera's frame, made upright RGB before.
    void preprocess(const Frame& frame);

    // The tensor that preprocess() made: manifest().input.size_bytes() bytes.
    const Bytes& input() const;

    // Hands the runtime a tensor: input(), or bytes of the same size from elsewhere.
    void set_input(ByteView tensor);

    // The runtime's call and nothing else, for the clock's sake.
    void invoke();

    // Output `index` of manifest().outputs, as the artifact stores it or as real numbers. Each is
    // fetched once an inference, and valid until the next. Raises CallError for another index.
    const Bytes& output_bytes(std::size_t index);
    const std::vector<float>& output(std::size_t index);

    // The index of the output of that name. Raises InputError naming those there are.
    std::size_t output_index(const std::string& name) const;

  private:
    enum class State { empty, ready, invoked };

    struct Output {
        std::size_t backend_index = 0;
        bool is_fetched = false;
        bool is_real = false;
        Bytes bytes;
        std::vector<float> real;
    };

    void allocate();
    void make_ready(const BackendOptions& options);
    void preprocess_view(const ImageView& view);
    Output& fetched(std::size_t index);

    Manifest manifest_;
    std::string backend_name_;
    std::unique_ptr<Backend> backend_;
    Preprocessor preprocessor_;
    State state_ = State::empty;
    bool preprocessed_ = false;
    Image rgb_;
    Bytes input_;
    std::vector<Output> outputs_;  // in the manifest's order
};

}  // namespace edgevit
