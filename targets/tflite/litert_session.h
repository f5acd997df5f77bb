// LiteRT behind RAII: the loaded library, an opened model, and a compiled session of it.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/bytes.h"
#include "core/tensor.h"
#include "litert_abi.h"
#include "model_check.h"

namespace edgevit::litert {

// A handle and the library's function that destroys it.
using Owned = std::unique_ptr<void, void (*)(void*)>;

// Raises Error "WHAT: LiteRT status N" unless the status is 0.
void check(Status status, std::string_view what);

// Loads libLiteRt.so by load_shared_library(). Raises ToolMissing when it cannot be loaded or is
// not LiteRT 2.x.
Api load_library(const std::filesystem::path& path);

// What a model is opened for.
struct ModelSettings {
    Accelerator accelerator = kCpu;
    Operators operators = Operators::builtin;  // that its file may hold
    std::string dispatch_folder = {};  // where the NPU's dispatch library lies; empty: not told
};

// An environment and a model, whose bytes must outlive it. Raises InputError for a model that
// check_model() or LiteRT refuses; `where` is what it is called in messages.
class Model {
  public:
    Model(const Api& api, const ModelSettings& settings, ByteView bytes, const std::string& where);

    Handle environment() const { return environment_.get(); }
    Handle model() const { return model_.get(); }
    std::size_t ops() const { return ops_; }  // in the signature's graph, as in the file
    const std::vector<TensorSpec>& inputs() const { return inputs_; }
    const std::vector<TensorSpec>& outputs() const { return outputs_; }
    const std::vector<RankedTensorType>& input_types() const { return input_types_; }
    const std::vector<RankedTensorType>& output_types() const { return output_types_; }

  private:
    // By its name in the signature; the tensor itself may be called otherwise.
    void describe(const char* name, Handle tensor, std::vector<TensorSpec>& specs,
                  std::vector<RankedTensorType>& types);

    const Api& api_;
    std::string file_;
    Owned environment_;
    Owned model_;
    std::size_t ops_ = 0;
    std::vector<TensorSpec> inputs_;
    std::vector<TensorSpec> outputs_;
    std::vector<RankedTensorType> input_types_;
    std::vector<RankedTensorType> output_types_;
};

struct SessionSettings {
    int threads = 1;
    Accelerator accelerator = kCpu;  // alone: LiteRT computes nothing elsewhere in silence
    bool profiling = false;
    std::string advice = {};  // ends the message where another accelerator than the CPU fails
};

// A model with one input, compiled for an accelerator.
class Session {
  public:
    // Raises ToolMissing when another accelerator than the CPU cannot run the model here: it is run
    // once, for LiteRT also compiles a model whose accelerator it could not load.
    Session(const Api& api, const Model& model, const SessionSettings& settings);

    void set_input(ByteView bytes);
    void invoke();
    void get_output(std::size_t index, std::uint8_t* out, std::size_t size_bytes);

    bool fully_accelerated() const;
    // Empty before LiteRT 2.3, which does not tell it.
    std::optional<bool> non_cpu_fully_accelerated() const;

    // What the profiler saw of one invoke(), the tags copied. Needs profiling.
    struct Event {
        std::string name;
        std::int32_t type;
        std::uint64_t index;
        std::uint64_t elapsed_us;
    };
    std::vector<Event> profiled_invoke();

  private:
    Status run();
    void try_out(const std::string& advice);
    void add_options(Handle options, const char* identifier, const std::string& toml) const;
    Owned make_input(const Model& model) const;
    Owned make_output(const Model& model, std::size_t index) const;
    Owned make_buffer(const Model& model, const RankedTensorType& type, Handle requirements) const;

    const Api& api_;
    Owned options_;
    Owned compiled_;
    Owned input_;
    std::vector<Owned> outputs_;
    std::vector<Handle> output_handles_;  // of outputs_, as LiteRT takes them
};

}  // namespace edgevit::litert
