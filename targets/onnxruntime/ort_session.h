// ONNX Runtime behind RAII: the loaded library and a session of one model.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/bytes.h"
#include "core/tensor.h"
#include "ort_abi.h"

namespace edgevit::onnxruntime {

// A handle and the library's function that destroys it.
using Owned = std::unique_ptr<void, void (*)(void*)>;

struct Library {
    Api api;
    std::string version;

    // Raises Error "ONNX Runtime: WHAT: its message" unless the status is null, and frees it.
    void check(Status status, std::string_view what) const;
    // The status's message, freed with it; "" for null.
    std::string message(Status status) const;
};

// Loads libonnxruntime.so. It stays loaded until the program ends: its worker threads may outlive
// any session. Raises ToolMissing when it cannot be loaded or is older than kApiVersion.
Library load_library(const std::filesystem::path& path);

// Session configuration entries, by ONNX Runtime's names of them.
using Settings = std::map<std::string, std::string>;

// A model, opened for the CPU: ops one after another, each on `threads` threads.
class Session {
  public:
    // `profile_prefix`: where the profile goes; empty: no profiling. Raises InputError when ONNX
    // Runtime refuses the file, or an input or output is no tensor of a known type.
    Session(const Library& library, const std::filesystem::path& file, int threads,
            const Settings& settings, const std::string& profile_prefix);

    // A side that the model leaves open is -1.
    const std::vector<TensorSpec>& inputs() const { return inputs_; }
    const std::vector<TensorSpec>& outputs() const { return outputs_; }

    // Makes the buffers; needs one input, and no open sides.
    void allocate();

    void set_input(ByteView bytes);
    void invoke();
    void get_output(std::size_t index, std::uint8_t* out, std::size_t size_bytes) const;

    // Stops profiling and returns the file it wrote.
    std::filesystem::path end_profiling();

  private:
    Owned create_options(int threads, const Settings& settings,
                         const std::string& profile_prefix) const;
    TensorSpec describe(std::size_t index, bool is_input) const;
    Owned make_value(const TensorSpec& spec, Bytes& memory) const;
    std::string take_text(char* text) const;

    const Library& library_;
    std::string file_;
    Owned environment_;
    Owned memory_info_;
    Owned session_;
    Handle allocator_ = nullptr;  // the library's own
    std::vector<TensorSpec> inputs_;
    std::vector<TensorSpec> outputs_;
    Bytes input_memory_;
    std::vector<Bytes> output_memories_;
    Owned input_;  // values of the memory above
    std::vector<Owned> output_values_;
    // The outputs as ONNX Runtime takes them: their names, and values that it writes into.
    std::vector<const char*> output_names_;
    std::vector<Handle> output_handles_;
};

}  // namespace edgevit::onnxruntime
