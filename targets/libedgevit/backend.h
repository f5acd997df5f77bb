// A back-end runs one opened artifact: one input tensor in, output tensors out.
//
// A back-end lives in one folder under targets/ and registers itself: no list names it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/bytes.h"
#include "core/manifest.h"
#include "log.h"
#include "runtime_options.h"

namespace edgevit {

struct BackendOptions {
    int threads = 1;
    std::string runtime_library;  // what --runtime named, e.g. a shared library; empty: not given
    RuntimeOptions runtime_options = {};  // what this back-end alone takes
    // The artifact, where it is no file in the manifest's folder; outlives the back-end. Empty: the
    // file.
    ByteView artifact = {};
    int warmup_runs = 0;  // inferences on an input of zeros before the session is ready
    Log log = {};         // empty: nothing is told
};

// Facts about the runtime, each as it reports it; what it cannot tell stays empty.
struct RuntimeFacts {
    std::string name;
    std::optional<std::string> version;
    std::optional<std::string> library_file;
    std::optional<std::string> library_sha256;
    std::string accelerator_requested;
    std::optional<std::string> device = {};  // the accelerator that was found
    std::optional<bool> fully_accelerated;
    std::optional<bool> non_cpu_fully_accelerated;
};

// One op of the running graph. A delegate fuses and renames ops, so these need not be the file's.
struct OpTime {
    std::string name;
    bool delegated = false;
    std::int64_t partition = 0;  // of the delegate, counted from 0 in running order
    std::int64_t index = 0;      // within its partition, or the op's index in the graph
    std::int64_t runs = 0;       // 0: placed, not timed
    std::int64_t total_us = 0;
    std::optional<std::string> device = {};  // "cpu", "gpu" or "ane", where the runtime names it
    std::optional<std::string> type = {};    // where `name` is a name of its own, not the op's type
    std::optional<std::string> precision = {};  // what it reads, where the runtime tells: "int8"
};

// How the runtime split the graph. A figure that it does not give stays empty, with the reason.
struct OpReport {
    std::optional<std::int64_t> total;
    std::optional<std::int64_t> delegated;
    std::optional<std::int64_t> partitions;
    std::map<std::string, std::int64_t> not_delegated;  // op name -> how many
    // "cpu", "gpu", "ane", or "none" for an op that the runtime gives no device -> how many ops.
    std::optional<std::map<std::string, std::int64_t>> devices;
    // What an op reads ("int8", "float16", "float32", "other") -> how many ops.
    std::optional<std::map<std::string, std::int64_t>> precisions;
    std::string reason;         // empty when nothing is missing
    std::vector<OpTime> times;  // in running order
};

class Backend {
  public:
    Backend() = default;
    Backend(const Backend&) = delete;
    Backend& operator=(const Backend&) = delete;
    virtual ~Backend() = default;

    // The tensors as the opened artifact describes them.
    virtual std::vector<TensorSpec> inputs() const = 0;
    virtual std::vector<TensorSpec> outputs() const = 0;

    // One inference in three steps, so that invoke() can be timed alone. `bytes` is the one input,
    // get_output() copies output `index` of outputs(), which has `size_bytes`. Each raises Error
    // with the runtime's own message.
    virtual void set_input(ByteView bytes) = 0;
    virtual void invoke() = 0;
    virtual void get_output(std::size_t index, std::uint8_t* out, std::size_t size_bytes) = 0;

    // How long the last invoke() kept the accelerator busy, by its own clock; empty where there is
    // no such clock.
    virtual std::optional<double> last_device_us() const { return std::nullopt; }

    // What runs the artifact: "cpu", "gpu", "npu", or the back-end's own word.
    virtual std::string accelerator() const { return "cpu"; }

    virtual RuntimeFacts facts() const = 0;

    // Runs the artifact `runs` times on `input` with the runtime's profiler, apart from the timed
    // session, which profiling would slow down.
    virtual OpReport profile(ByteView input, int runs) = 0;
};

using BackendFactory = std::unique_ptr<Backend> (*)(const Manifest&, const BackendOptions&);

// How a back-end that can be opened from bytes registers itself.
enum class Opens { folders, bytes_too };

// Called while the program starts, from the back-end's own file:
//     const bool registered = edgevit::register_backend("name", open_function);
// `takes` lists the runtime options that may be given; those that reach `open` were checked
// against it. Always true.
bool register_backend(const std::string& name, BackendFactory open,
                      const std::vector<RuntimeOption>& takes = {}, Opens opens = Opens::folders);

// The same for a target whose back-end this build lacks: opening it raises ToolMissing with the
// reason. CMake's edgevit_leave_out_backend() writes the call. Always true.
bool register_left_out(const std::string& name, const std::string& reason);

std::vector<std::string> backend_names();

// What the back-end was registered with. Raises InputError for an unknown name.
const std::vector<RuntimeOption>& runtime_options_of(const std::string& backend);

// Opens the artifact. Raises InputError for an unknown name, an option that the back-end does not
// take or an artifact that the runtime refuses, ToolMissing when the runtime's library is not there
// or the back-end was left out of this build.
std::unique_ptr<Backend> open_backend(const std::string& name, const Manifest& manifest,
                                      const BackendOptions& options);

// For each output of the manifest its index in backend.outputs(): the one of its name, or, of a
// single output, the only one. Raises InputError when the opened artifact's tensors are not those
// of the manifest.
std::vector<std::size_t> match_tensors(const Backend& backend, const Manifest& manifest);

}  // namespace edgevit
