#include "ort_backend.h"

#include <stdlib.h>
#include <unistd.h>  // where Darwin declares mkdtemp

#include <cstdlib>
#include <system_error>
#include <utility>

#include "core/errors.h"
#include "core/sha256.h"
#include "profile_report.h"
#include "shared_library.h"

namespace edgevit::onnxruntime {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kMaxProfileBytes = 512 << 20;

fs::path library_path(const BackendOptions& options) {
    if (!options.runtime_library.empty()) {
        return options.runtime_library;
    }
    const char* named = std::getenv("EDGEVIT_ONNXRUNTIME_LIB");
    return named != nullptr ? named : "";
}

fs::path onnx_file(const Manifest& manifest) {
    fs::path file = manifest.artifact_path();
    if (file.extension() != ".onnx") {
        throw InputError(file.string() +
                         ": the onnxruntime back-end runs .onnx files; leave --backend out for the "
                         "runtime of the " +
                         manifest.target + " target");
    }
    return file;
}

// Tensors as the session describes them, integer ones with the manifest's scale and zero-point:
// ONNX has those in nodes, not in tensors. (The audit compared them when the file was written.)
std::vector<TensorSpec> with_scales(std::vector<TensorSpec> found,
                                    const std::vector<TensorSpec>& described) {
    const bool is_only = found.size() == 1 && described.size() == 1;  // its name may be another
    for (TensorSpec& spec : found) {
        const bool is_integer = spec.dtype == DType::int8 || spec.dtype == DType::uint8;
        for (const TensorSpec& known : described) {
            if (is_integer && (is_only || known.name == spec.name)) {
                spec.scale = known.scale;
                spec.zero_point = known.zero_point;
            }
        }
    }
    return found;
}

// A folder of our own that goes away with its contents.
class TemporaryFolder {
  public:
    TemporaryFolder() {
        std::string name = (fs::temp_directory_path() / "edgevit-profile-XXXXXX").string();
        if (::mkdtemp(name.data()) == nullptr) {
            throw Error("cannot make a temporary folder in " + fs::temp_directory_path().string());
        }
        path_ = name;
    }
    TemporaryFolder(const TemporaryFolder&) = delete;
    TemporaryFolder& operator=(const TemporaryFolder&) = delete;
    ~TemporaryFolder() {
        std::error_code ignored;
        fs::remove_all(path_, ignored);
    }
    const fs::path& path() const { return path_; }

  private:
    fs::path path_;
};

class OnnxRuntimeBackend : public Backend {
  public:
    OnnxRuntimeBackend(const Manifest& manifest, const BackendOptions& options, Settings settings)
        : model_(onnx_file(manifest)), path_(library_path(options)), threads_(options.threads),
          settings_(std::move(settings)), library_(load_library(path_)),
          session_(library_, model_, threads_, settings_, ""),
          inputs_(with_scales(session_.inputs(), {manifest.input})),
          outputs_(with_scales(session_.outputs(), manifest.outputs)) {
        match_tensors(*this, manifest);  // before buffers are made for one input
        session_.allocate();
    }

    std::vector<TensorSpec> inputs() const override { return inputs_; }
    std::vector<TensorSpec> outputs() const override { return outputs_; }

    void set_input(ByteView bytes) override { session_.set_input(bytes); }
    void invoke() override { session_.invoke(); }
    void get_output(std::size_t index, std::uint8_t* out, std::size_t size_bytes) override {
        session_.get_output(index, out, size_bytes);
    }

    RuntimeFacts facts() const override {
        RuntimeFacts facts;
        facts.name = "ONNX Runtime";
        facts.version = library_.version;
        facts.library_file = path_.filename().string();
        if (const auto file =
                file_of_function(reinterpret_cast<const void*>(library_.api.ReleaseStatus))) {
            facts.library_sha256 = sha256_file(*file);
        }
        facts.accelerator_requested = "cpu";
        return facts;
    }

    OpReport profile(ByteView input, int runs) override {
        const TemporaryFolder folder;
        Session profiled(library_, model_, threads_, settings_,
                         (folder.path() / "profile").string());
        profiled.allocate();
        profiled.set_input(input);
        for (int i = 0; i <= runs; ++i) {  // the first inference is the warm-up
            profiled.invoke();
        }
        const Bytes text = read_file(profiled.end_profiling(), kMaxProfileBytes);
        return report_profile({text.begin(), text.end()}, runs);
    }

  private:
    fs::path model_;
    fs::path path_;
    int threads_;
    Settings settings_;
    Library library_;
    Session session_;
    std::vector<TensorSpec> inputs_;
    std::vector<TensorSpec> outputs_;
};

}  // namespace

std::unique_ptr<Backend> open_onnxruntime(const Manifest& manifest, const BackendOptions& options,
                                          const Settings& settings) {
    return std::make_unique<OnnxRuntimeBackend>(manifest, options, settings);
}

}  // namespace edgevit::onnxruntime
