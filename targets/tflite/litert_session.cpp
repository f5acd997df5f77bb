#include "litert_session.h"

#include <cstdlib>
#include <cstring>

#include "core/errors.h"
#include "shared_library.h"

namespace edgevit::litert {
namespace {

constexpr const char* kHowToGet =
    "install it with `pip install ai-edge-litert==2.3.0` and name its libLiteRt.so with --runtime "
    "or the environment variable EDGEVIT_LITERT_LIB (in an Android app: depend on "
    "com.google.ai.edge.litert:litert:2.3.0)";

// Locks a tensor buffer into host memory for as long as it lives.
class Lock {
  public:
    Lock(const Api& api, Handle buffer, LockMode mode, std::size_t size_bytes)
        : api_(api), buffer_(buffer) {
        std::size_t actual = 0;
        check(api_.GetTensorBufferPackedSize(buffer_, &actual), "size of a tensor buffer");
        if (actual != size_bytes) {
            throw Error("LiteRT: a tensor buffer of " + std::to_string(actual) +
                        " bytes, expected " + std::to_string(size_bytes));
        }
        check(api_.LockTensorBuffer(buffer_, &memory_, mode), "locking a tensor buffer");
    }
    Lock(const Lock&) = delete;
    Lock& operator=(const Lock&) = delete;
    ~Lock() { api_.UnlockTensorBuffer(buffer_); }

    void* memory() const { return memory_; }

  private:
    const Api& api_;
    Handle buffer_;
    void* memory_ = nullptr;
};

Owned create_environment(const Api& api, const ModelSettings& settings) {
    // Errors only on stderr, and no search for plugins of accelerators that nobody asked for.
    EnvironmentOption options[3] = {};
    options[0].tag = kMinLogSeverity;
    options[0].value.type = kAnyInt;
    options[0].value.integer = kLogErrors;
    options[1].tag = kAutoRegisterAccelerators;
    options[1].value.type = kAnyInt;
    options[1].value.integer = settings.accelerator;
    options[2].tag = kDispatchLibraryDir;
    options[2].value.type = kAnyText;
    options[2].value.text = settings.dispatch_folder.c_str();
    const int count = settings.dispatch_folder.empty() ? 2 : 3;
    Handle environment = nullptr;
    check(api.CreateEnvironment(count, options, &environment), "creating the environment");
    return {environment, api.DestroyEnvironment};
}

DType dtype_of(std::int32_t element_type, const std::string& where) {
    switch (element_type) {
        case kInt8:
            return DType::int8;
        case kUInt8:
            return DType::uint8;
        case kFloat32:
            return DType::float32;
        default:
            throw InputError(where + " has LiteRT element type " + std::to_string(element_type) +
                             "; int8, uint8 and float32 are known");
    }
}

[[noreturn]] void throw_unaccelerated(Status status, const std::string& advice) {
    throw ToolMissing("LiteRT cannot run all of the model on the accelerator here (status " +
                      std::to_string(status) + "): " + advice);
}

}  // namespace

void check(Status status, std::string_view what) {
    if (status != 0) {
        throw Error("LiteRT: " + std::string(what) + ": status " + std::to_string(status));
    }
}

Api load_library(const std::filesystem::path& path) {
    void* library = load_shared_library(path, "LiteRT", kHowToGet);
    Api api;
#define EDGEVIT_LITERT_LOOK_UP(name, result, parameters)                                       \
    api.name = reinterpret_cast<result(*) parameters>(find_function(library, "LiteRt" #name)); \
    if (api.name == nullptr) {                                                                 \
        throw ToolMissing(path.string() + ": is not LiteRT 2.x, it lacks LiteRt" #name "; " +  \
                          kHowToGet);                                                          \
    }
    EDGEVIT_LITERT_FUNCTIONS(EDGEVIT_LITERT_LOOK_UP)
#undef EDGEVIT_LITERT_LOOK_UP
    api.CompiledModelIsNonCpuFullyAccelerated =
        reinterpret_cast<decltype(api.CompiledModelIsNonCpuFullyAccelerated)>(
            find_function(library, "LiteRtCompiledModelIsNonCpuFullyAccelerated"));
    return api;
}

Model::Model(const Api& api, const ModelSettings& settings, ByteView bytes,
             const std::string& where)
    : api_(api), file_(where), environment_(create_environment(api, settings)),
      model_(nullptr, api.DestroyModel) {
    check_model(bytes, file_, settings.operators);  // LiteRT reads it without looking
    Handle model = nullptr;
    if (const Status status =
            api_.CreateModelFromBuffer(environment(), bytes.data, bytes.size, &model);
        status != 0) {
        throw InputError(file_ + ": LiteRT cannot read it as a .tflite model (status " +
                         std::to_string(status) + ")");
    }
    model_.reset(model);
    std::size_t signatures = 0, inputs = 0, outputs = 0;
    check(api_.GetNumModelSignatures(model, &signatures), "counting signatures");
    if (signatures != 1) {
        throw InputError(file_ + ": has " + std::to_string(signatures) +
                         " signatures, one is expected");
    }
    Handle signature = nullptr, graph = nullptr, tensor = nullptr;
    check(api_.GetModelSignature(model, 0, &signature), "reading the signature");
    check(api_.GetSignatureSubgraph(signature, &graph), "reading the graph");
    check(api_.GetNumSubgraphOps(graph, &ops_), "counting ops");
    check(api_.GetNumSignatureInputs(signature, &inputs), "counting inputs");
    check(api_.GetNumSignatureOutputs(signature, &outputs), "counting outputs");
    const char* name = "";
    for (std::size_t i = 0; i < inputs; ++i) {
        check(api_.GetSignatureInputName(signature, i, &name), "reading an input's name");
        check(api_.GetSignatureInputTensorByIndex(signature, i, &tensor), "reading an input");
        describe(name, tensor, inputs_, input_types_);
    }
    for (std::size_t i = 0; i < outputs; ++i) {
        check(api_.GetSignatureOutputName(signature, i, &name), "reading an output's name");
        check(api_.GetSignatureOutputTensorByIndex(signature, i, &tensor), "reading an output");
        describe(name, tensor, outputs_, output_types_);
    }
}

void Model::describe(const char* name, Handle tensor, std::vector<TensorSpec>& specs,
                     std::vector<RankedTensorType>& types) {
    TensorSpec& spec = specs.emplace_back();
    RankedTensorType& type = types.emplace_back();
    int quantization = kNoQuantization;
    spec.name = name;
    check(api_.GetRankedTensorType(tensor, &type), "reading the type of " + spec.name);
    spec.dtype = dtype_of(type.element_type, file_ + ": " + spec.name);
    spec.shape.assign(type.layout.dimensions, type.layout.dimensions + type.layout.rank);
    check(api_.GetQuantizationTypeId(tensor, &quantization),
          "reading the quantization of " + spec.name);
    if (quantization == kPerTensor) {
        PerTensorQuantization values{};
        check(api_.GetPerTensorQuantization(tensor, &values), "reading the scale of " + spec.name);
        spec.scale = values.scale;
        spec.zero_point = static_cast<int>(values.zero_point);
    }
}

Session::Session(const Api& api, const Model& model, const SessionSettings& settings)
    : api_(api), options_(nullptr, api.DestroyOptions),
      compiled_(nullptr, api.DestroyCompiledModel), input_(nullptr, api.DestroyTensorBuffer) {
    Handle options = nullptr, compiled = nullptr;
    check(api_.CreateOptions(&options), "creating options");
    options_.reset(options);
    check(api_.SetOptionsHardwareAccelerators(options, settings.accelerator),
          "asking for an accelerator");
    add_options(options, "xnnpack", "num_threads = " + std::to_string(settings.threads) + "\n");
    if (settings.profiling) {
        add_options(options, "runtime_options_string", "enable_profiling = true\n");
    }
    const Status status =
        api_.CreateCompiledModel(model.environment(), model.model(), options, &compiled);
    compiled_.reset(compiled);
    if (settings.accelerator == kCpu) {
        check(status, "compiling the model");
    } else if (status != 0 || !fully_accelerated() || !non_cpu_fully_accelerated().value_or(true)) {
        throw_unaccelerated(status, settings.advice);
    }
    input_ = make_input(model);
    for (std::size_t i = 0; i < model.outputs().size(); ++i) {
        outputs_.push_back(make_output(model, i));
        output_handles_.push_back(outputs_.back().get());
    }
    if (settings.accelerator != kCpu) {
        try_out(settings.advice);
    }
}

void Session::try_out(const std::string& advice) {
    std::size_t size_bytes = 0;
    check(api_.GetTensorBufferPackedSize(input_.get(), &size_bytes), "size of a tensor buffer");
    set_input(Bytes(size_bytes));
    if (const Status status = run(); status != 0) {
        throw_unaccelerated(status, advice);
    }
}

// Options travel as a TOML text under an identifier.
void Session::add_options(Handle options, const char* identifier, const std::string& toml) const {
    std::unique_ptr<char, void (*)(void*)> text(::strdup(toml.c_str()), std::free);
    Handle opaque = nullptr;
    check(api_.CreateOpaqueOptions(identifier, text.get(), std::free, &opaque), "creating options");
    static_cast<void>(text.release());  // the options own it now
    Owned owner(opaque, api_.DestroyOpaqueOptions);
    check(api_.AddOpaqueOptions(options, opaque), "adding options");
    static_cast<void>(owner.release());
}

Owned Session::make_input(const Model& model) const {
    Handle requirements = nullptr;
    check(api_.GetCompiledModelInputBufferRequirements(compiled_.get(), 0, 0, &requirements),
          "reading buffer requirements");
    return make_buffer(model, model.input_types().front(), requirements);
}

Owned Session::make_output(const Model& model, std::size_t index) const {
    Handle requirements = nullptr;
    check(api_.GetCompiledModelOutputBufferRequirements(compiled_.get(), 0, index, &requirements),
          "reading buffer requirements");
    return make_buffer(model, model.output_types()[index], requirements);
}

Owned Session::make_buffer(const Model& model, const RankedTensorType& type,
                           Handle requirements) const {
    Handle buffer = nullptr;
    check(api_.CreateManagedTensorBufferFromRequirements(model.environment(), &type, requirements,
                                                         &buffer),
          "creating a tensor buffer");
    return {buffer, api_.DestroyTensorBuffer};
}

void Session::set_input(ByteView bytes) {
    const Lock lock(api_, input_.get(), kWrite, bytes.size);
    std::memcpy(lock.memory(), bytes.data, bytes.size);
}

Status Session::run() {
    Handle input = input_.get();
    return api_.RunCompiledModel(compiled_.get(), 0, 1, &input, output_handles_.size(),
                                 output_handles_.data());
}

void Session::invoke() { check(run(), "running the model"); }

void Session::get_output(std::size_t index, std::uint8_t* out, std::size_t size_bytes) {
    const Lock lock(api_, outputs_.at(index).get(), kRead, size_bytes);
    std::memcpy(out, lock.memory(), size_bytes);
}

bool Session::fully_accelerated() const {
    bool answer = false;
    check(api_.CompiledModelIsFullyAccelerated(compiled_.get(), &answer),
          "asking for acceleration");
    return answer;
}

std::optional<bool> Session::non_cpu_fully_accelerated() const {
    if (api_.CompiledModelIsNonCpuFullyAccelerated == nullptr) {
        return std::nullopt;
    }
    bool answer = false;
    check(api_.CompiledModelIsNonCpuFullyAccelerated(compiled_.get(), &answer),
          "asking for acceleration");
    return answer;
}

std::vector<Session::Event> Session::profiled_invoke() {
    Handle profiler = nullptr;  // owned by the compiled model
    check(api_.CompiledModelGetProfiler(compiled_.get(), &profiler), "opening the profiler");
    if (profiler == nullptr) {
        throw Error("LiteRT: this build has no profiler");
    }
    check(api_.ResetProfiler(profiler), "resetting the profiler");
    check(api_.StartProfiler(profiler), "starting the profiler");
    invoke();
    check(api_.StopProfiler(profiler), "stopping the profiler");
    int count = 0;
    check(api_.GetNumProfilerEvents(profiler, &count), "counting profiled events");
    std::vector<ProfiledEvent> raw(static_cast<std::size_t>(count));
    if (count > 0) {
        check(api_.GetProfilerEvents(profiler, count, raw.data()), "reading profiled events");
    }
    std::vector<Event> events;
    events.reserve(raw.size());
    for (const ProfiledEvent& event : raw) {
        events.push_back(
            {event.tag != nullptr ? event.tag : "", event.type, event.metadata1, event.elapsed_us});
    }
    return events;
}

}  // namespace edgevit::litert
