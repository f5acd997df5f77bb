#include "litert_backend.h"

#include <cstdlib>

#include "core/sha256.h"
#include "mapped_file.h"
#include "op_report.h"
#include "shared_library.h"

namespace edgevit::litert {
namespace {

namespace fs = std::filesystem;

fs::path library_path(const BackendOptions& options) {
    if (!options.runtime_library.empty()) {
        return options.runtime_library;
    }
    const char* named = std::getenv("EDGEVIT_LITERT_LIB");
    return named != nullptr ? named : "";
}

// The library does not tell its version. Where it lies in the wheel's folder, the record that pip
// wrote beside that folder does: ai_edge_litert-VERSION.dist-info.
std::optional<std::string> wheel_version(const fs::path& library) {
    const fs::path package = fs::absolute(library).parent_path();
    const std::string prefix = package.filename().string() + "-";
    const std::string suffix = ".dist-info";
    std::optional<std::string> version;
    std::error_code error;
    for (const fs::directory_entry& item : fs::directory_iterator(package.parent_path(), error)) {
        const std::string name = item.path().filename().string();
        if (name.size() <= prefix.size() + suffix.size() ||
            name.compare(0, prefix.size(), prefix) != 0 ||
            name.compare(name.size() - suffix.size(), suffix.size(), suffix) != 0) {
            continue;
        }
        if (version) {
            return std::nullopt;  // two records: either may be stale
        }
        version = name.substr(prefix.size(), name.size() - prefix.size() - suffix.size());
    }
    return version;
}

// Null where the bytes were given.
std::unique_ptr<MappedFile> map_file(const fs::path& file, const BackendOptions& options) {
    return options.artifact.data != nullptr ? nullptr : std::make_unique<MappedFile>(file);
}

class LiteRtBackend : public Backend {
  public:
    LiteRtBackend(const Manifest& manifest, const BackendOptions& options,
                  const LiteRtSettings& settings)
        : library_(library_path(options)), threads_(options.threads), settings_(settings),
          api_(load_library(library_)), file_(map_file(settings.file, options)),
          model_(api_, settings.model, file_ ? file_->bytes() : options.artifact,
                 settings.file.string()) {
        match_tensors(*this, manifest);  // before a session assumes one input
        session_.emplace(api_, model_, session_settings(false));
    }

    std::vector<TensorSpec> inputs() const override { return model_.inputs(); }
    std::vector<TensorSpec> outputs() const override { return model_.outputs(); }

    void set_input(ByteView bytes) override { session_->set_input(bytes); }
    void invoke() override { session_->invoke(); }
    void get_output(std::size_t index, std::uint8_t* out, std::size_t size_bytes) override {
        session_->get_output(index, out, size_bytes);
    }

    std::string accelerator() const override {
        return accelerator_name(settings_.model.accelerator);
    }

    RuntimeFacts facts() const override {
        RuntimeFacts facts;
        facts.name = "LiteRT";
        facts.library_file = library_.filename().string();
        if (const auto file =
                file_of_function(reinterpret_cast<const void*>(api_.CreateEnvironment))) {
            facts.version = wheel_version(*file);
            facts.library_sha256 = sha256_file(*file);
        }
        facts.accelerator_requested = accelerator();
        facts.device = settings_.device;
        facts.fully_accelerated = session_->fully_accelerated();
        facts.non_cpu_fully_accelerated = session_->non_cpu_fully_accelerated();
        return facts;
    }

    OpReport profile(ByteView input, int runs) override {
        Session profiled(api_, model_, session_settings(true));
        profiled.set_input(input);
        profiled.invoke();  // the first inference also packs weights
        std::vector<std::vector<Session::Event>> events;
        events.reserve(static_cast<std::size_t>(runs));
        for (int i = 0; i < runs; ++i) {
            events.push_back(profiled.profiled_invoke());
        }
        return report_ops(model_.ops(), events);
    }

  private:
    SessionSettings session_settings(bool profiling) const {
        return {threads_, settings_.model.accelerator, profiling, settings_.advice};
    }

    fs::path library_;
    int threads_;
    LiteRtSettings settings_;
    Api api_;
    std::unique_ptr<MappedFile> file_;  // null: the bytes are the caller's
    Model model_;
    std::optional<Session> session_;
};

}  // namespace

std::string accelerator_name(Accelerator accelerator) {
    switch (accelerator) {
        case kCpu:
            return "cpu";
        case kGpu:
            return "gpu";
        case kNpu:
            return "npu";
    }
    return "";
}

std::unique_ptr<Backend> open_litert(const Manifest& manifest, const BackendOptions& options,
                                     const LiteRtSettings& settings) {
    return std::make_unique<LiteRtBackend>(manifest, options, settings);
}

}  // namespace edgevit::litert
