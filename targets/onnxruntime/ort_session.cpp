#include "ort_session.h"

#include <dlfcn.h>

#include <cstring>

#include "core/errors.h"
#include "shared_library.h"

namespace edgevit::onnxruntime {
namespace {

constexpr const char* kHowToGet =
    "install it with `pip install onnxruntime==1.32.0` and name its capi/libonnxruntime.so.* with "
    "--runtime or the environment variable EDGEVIT_ONNXRUNTIME_LIB";

DType dtype_of(int element_type, const std::string& where) {
    switch (element_type) {
        case kInt8:
            return DType::int8;
        case kUInt8:
            return DType::uint8;
        case kFloat16:
            return DType::float16;
        case kFloat32:
            return DType::float32;
        default:
            throw InputError(where + " has ONNX element type " + std::to_string(element_type) +
                             "; int8, uint8, float16 and float32 are known");
    }
}

}  // namespace

std::string Library::message(Status status) const {
    if (status == nullptr) {
        return "";
    }
    const Owned owner(status, api.ReleaseStatus);
    return api.GetErrorMessage(status);
}

void Library::check(Status status, std::string_view what) const {
    if (const std::string text = message(status); status != nullptr) {
        throw Error("ONNX Runtime: " + std::string(what) + ": " + text);
    }
}

Library load_library(const std::filesystem::path& path) {
    void* loaded = load_shared_library(path, "ONNX Runtime", kHowToGet);
    const auto get_base = reinterpret_cast<const ApiBase* (*)()>(dlsym(loaded, "OrtGetApiBase"));
    if (get_base == nullptr) {
        throw ToolMissing(path.string() + ": is not ONNX Runtime, it lacks OrtGetApiBase; " +
                          kHowToGet);
    }
    const ApiBase* base = get_base();
    const void* const* table = base->get_api(kApiVersion);
    if (table == nullptr) {
        throw ToolMissing(path.string() + ": is ONNX Runtime " + base->version() +
                          ", 1.16 or newer is needed; " + kHowToGet);
    }
    Library library;
    library.version = base->version();
#define EDGEVIT_ORT_LOOK_UP(slot, name, result, parameters) \
    library.api.name = reinterpret_cast<result(*) parameters>(const_cast<void*>(table[slot]));
    EDGEVIT_ORT_FUNCTIONS(EDGEVIT_ORT_LOOK_UP)
#undef EDGEVIT_ORT_LOOK_UP
    return library;
}

Session::Session(const Library& library, const std::filesystem::path& file, int threads,
                 const Settings& settings, const std::string& profile_prefix)
    : library_(library), file_(file.string()), environment_(nullptr, library.api.ReleaseEnv),
      memory_info_(nullptr, library.api.ReleaseMemoryInfo),
      session_(nullptr, library.api.ReleaseSession), input_(nullptr, library.api.ReleaseValue) {
    const Api& api = library_.api;
    Handle environment = nullptr, memory_info = nullptr, session = nullptr;
    library_.check(api.CreateEnv(kLogErrors, "edgevit", &environment), "creating the environment");
    environment_.reset(environment);
    library_.check(api.CreateCpuMemoryInfo(kDeviceAllocator, kDefaultMemory, &memory_info),
                   "describing the CPU's memory");
    memory_info_.reset(memory_info);
    library_.check(api.GetAllocatorWithDefaultOptions(&allocator_), "finding the allocator");
    const Owned options = create_options(threads, settings, profile_prefix);
    const Status status = api.CreateSession(environment, file.c_str(), options.get(), &session);
    if (const std::string text = library_.message(status); status != nullptr) {
        throw InputError(file_ + ": ONNX Runtime cannot open it: " + text);
    }
    session_.reset(session);
    std::size_t inputs = 0, outputs = 0;
    library_.check(api.SessionGetInputCount(session, &inputs), "counting inputs");
    library_.check(api.SessionGetOutputCount(session, &outputs), "counting outputs");
    inputs_.reserve(inputs), outputs_.reserve(outputs);
    for (std::size_t i = 0; i < inputs; ++i) {
        inputs_.push_back(describe(i, true));
    }
    for (std::size_t i = 0; i < outputs; ++i) {
        outputs_.push_back(describe(i, false));
    }
}

Owned Session::create_options(int threads, const Settings& settings,
                              const std::string& profile_prefix) const {
    const Api& api = library_.api;
    Handle options = nullptr;
    library_.check(api.CreateSessionOptions(&options), "creating options");
    Owned owner(options, api.ReleaseSessionOptions);
    library_.check(api.SetIntraOpNumThreads(options, threads), "setting the threads");
    library_.check(api.SetInterOpNumThreads(options, 1), "setting the threads");
    library_.check(api.SetSessionExecutionMode(options, kSequential), "setting the order");
    library_.check(api.SetSessionGraphOptimizationLevel(options, kOptimizeAll),
                   "setting the optimization");
    for (const auto& [key, value] : settings) {
        library_.check(api.AddSessionConfigEntry(options, key.c_str(), value.c_str()),
                       "setting " + key);
    }
    if (!profile_prefix.empty()) {
        library_.check(api.EnableProfiling(options, profile_prefix.c_str()),
                       "enabling the profile");
    }
    return owner;
}

TensorSpec Session::describe(std::size_t index, bool is_input) const {
    const Api& api = library_.api;
    const auto get_name = is_input ? api.SessionGetInputName : api.SessionGetOutputName;
    const auto get_type = is_input ? api.SessionGetInputTypeInfo : api.SessionGetOutputTypeInfo;
    TensorSpec spec;
    char* name = nullptr;
    library_.check(get_name(session_.get(), index, allocator_, &name), "reading a tensor's name");
    spec.name = take_text(name);
    Handle type = nullptr;
    ConstHandle tensor = nullptr;
    library_.check(get_type(session_.get(), index, &type), "reading the type of " + spec.name);
    const Owned owner(type, api.ReleaseTypeInfo);
    library_.check(api.CastTypeInfoToTensorInfo(type, &tensor), "reading the type of " + spec.name);
    if (tensor == nullptr) {
        throw InputError(file_ + ": " + spec.name + " is not a tensor");
    }
    int element_type = 0;
    std::size_t rank = 0;
    library_.check(api.GetTensorElementType(tensor, &element_type), "reading a tensor's type");
    spec.dtype = dtype_of(element_type, file_ + ": " + spec.name);
    library_.check(api.GetDimensionsCount(tensor, &rank), "reading the shape of " + spec.name);
    spec.shape.resize(rank);
    library_.check(api.GetDimensions(tensor, spec.shape.data(), rank),
                   "reading the shape of " + spec.name);
    return spec;
}

std::string Session::take_text(char* text) const {
    std::string copy = text;
    library_.check(library_.api.AllocatorFree(allocator_, text), "freeing a text");
    return copy;
}

void Session::allocate() {
    input_ = make_value(inputs_.front(), input_memory_);
    output_memories_.resize(outputs_.size());
    for (std::size_t i = 0; i < outputs_.size(); ++i) {
        output_values_.push_back(make_value(outputs_[i], output_memories_[i]));
        output_names_.push_back(outputs_[i].name.c_str());
        output_handles_.push_back(output_values_.back().get());
    }
}

Owned Session::make_value(const TensorSpec& spec, Bytes& memory) const {
    memory.resize(spec.size_bytes());
    const int type = spec.dtype == DType::int8      ? kInt8
                     : spec.dtype == DType::uint8   ? kUInt8
                     : spec.dtype == DType::float16 ? kFloat16
                                                    : kFloat32;
    Handle value = nullptr;
    library_.check(library_.api.CreateTensorWithDataAsOrtValue(memory_info_.get(), memory.data(),
                                                               memory.size(), spec.shape.data(),
                                                               spec.shape.size(), type, &value),
                   "making the tensor " + spec.name);
    return {value, library_.api.ReleaseValue};
}

void Session::set_input(ByteView bytes) {
    if (bytes.size != input_memory_.size()) {
        throw Error("ONNX Runtime: an input of " + std::to_string(bytes.size) +
                    " bytes, expected " + std::to_string(input_memory_.size()));
    }
    std::memcpy(input_memory_.data(), bytes.data, bytes.size);
}

void Session::invoke() {
    const char* input_name = inputs_.front().name.c_str();
    const ConstHandle input = input_.get();
    library_.check(
        library_.api.Run(session_.get(), nullptr, &input_name, &input, 1, output_names_.data(),
                         output_names_.size(), output_handles_.data()),
        "running the model");
}

void Session::get_output(std::size_t index, std::uint8_t* out, std::size_t size_bytes) const {
    const Bytes& memory = output_memories_.at(index);
    if (size_bytes != memory.size()) {
        throw Error("ONNX Runtime: an output of " + std::to_string(memory.size()) +
                    " bytes, expected " + std::to_string(size_bytes));
    }
    std::memcpy(out, memory.data(), size_bytes);
}

std::filesystem::path Session::end_profiling() {
    char* name = nullptr;
    library_.check(library_.api.SessionEndProfiling(session_.get(), allocator_, &name),
                   "ending the profile");
    return take_text(name);
}

}  // namespace edgevit::onnxruntime
