// An opened artifact and the way of a picture through it. The C API and the harness run this one:
// what is validated is what ships.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "backend.h"
#include "core/bytes.h"
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

    // The tensor that preprocess() made: manifest().input.size_bytes() bytes.
    const Bytes& input() const;

    // Hands the runtime a tensor: input(), or bytes of the same size from elsewhere.
    void set_input(ByteView tensor);

    // The runtime's call and nothing else, for the clock's sake.
    void invoke();

    // Fetches the output as real numbers, one a class. Raises InputError when one is NaN
    // or infinite.
    const std::vector<float>& read_logits();

    // The `count` best classes of the last read_logits(), best first, of equal ones the lower index
    // first; all classes where there are fewer. Valid until the next call.
    const std::vector<std::size_t>& top_k(std::size_t count);

  private:
    void allocate();

    enum class State { empty, ready, invoked, answered };

    Manifest manifest_;
    std::string backend_name_;
    std::unique_ptr<Backend> backend_;
    Preprocessor preprocessor_;
    State state_ = State::empty;
    bool preprocessed_ = false;
    Image rgb_;
    Bytes input_;
    Bytes output_;
    std::vector<float> logits_;
    std::vector<std::size_t> order_;
    std::vector<std::size_t> best_;
};

}  // namespace edgevit
