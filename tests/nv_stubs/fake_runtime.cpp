// A stand-in, not NVIDIA's: see fake_runtime.h.
#include "fake_runtime.h"

#include <NvInfer.h>
#include <NvOnnxParser.h>
#include <cuda_runtime_api.h>

#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <sstream>

namespace fake {

State& state() {
    static State instance;
    return instance;
}

namespace {

using namespace nvinfer1;

void expect(bool holds, const std::string& what) {
    if (!holds) {
        state().violations.push_back(what);
    }
}

bool has(const std::string& text, const char* word) { return text.find(word) != std::string::npos; }

// Counts itself, and what was made of it and has to go first.
struct Counted {
    Counted(const char* name, int* parent) : name_(name), parent_(parent) {
        ++state().live;
        if (parent_ != nullptr) {
            ++*parent_;
        }
    }
    Counted(const Counted&) = delete;
    Counted& operator=(const Counted&) = delete;
    ~Counted() {
        expect(children == 0, std::string(name_) + " went before what was made of it");
        --state().live;
        if (parent_ != nullptr) {
            --*parent_;
        }
    }
    int children = 0;

  private:
    const char* name_;
    int* parent_;
};

struct Memory : IHostMemory {
    explicit Memory(std::string text) : text_(std::move(text)), counted_("memory", nullptr) {}
    void* data() const noexcept override { return const_cast<char*>(text_.data()); }
    std::size_t size() const noexcept override { return text_.size(); }

  private:
    std::string text_;
    Counted counted_;
};

struct Timings : ITimingCache {
    IHostMemory* serialize() const noexcept override { return new Memory("fake-timings"); }
    Counted counted{"timing cache", nullptr};
};

struct Config : IBuilderConfig {
    explicit Config(int* parent) : counted("config", parent) {}
    void setMemoryPoolLimit(MemoryPoolType, std::size_t bytes) noexcept override {
        expect(bytes > 0, "a workspace of nothing");
        state().workspace_bytes = bytes;
    }
    void setProfilingVerbosity(ProfilingVerbosity asked) noexcept override { verbosity = asked; }
    ITimingCache* createTimingCache(void const* blob, std::size_t size) const noexcept override {
        const std::string text(static_cast<const char*>(blob), size);
        state().timing_caches_read += text == "fake-timings" ? 1 : 0;
        return text.empty() || text == "fake-timings" ? new Timings : nullptr;
    }
    bool setTimingCache(ITimingCache const& cache, bool) noexcept override {
        timings = &cache;
        return true;
    }
    ITimingCache const* getTimingCache() const noexcept override { return timings; }

    ProfilingVerbosity verbosity = ProfilingVerbosity::kLAYER_NAMES_ONLY;
    ITimingCache const* timings = nullptr;
    Counted counted;
};

struct Network : INetworkDefinition {
    explicit Network(int* parent) : counted("network", parent) {}
    std::string text;
    Counted counted;
};

struct Builder : IBuilder {
    explicit Builder(ILogger& logger) : logger_(logger) {}
    INetworkDefinition* createNetworkV2(NetworkDefinitionCreationFlags flags) noexcept override {
        expect(flags == (NV_TENSORRT_MAJOR < 11 ? 2U : 0U), "the network is not strongly typed");
        return new Network(&counted_.children);
    }
    IBuilderConfig* createBuilderConfig() noexcept override {
        return new Config(&counted_.children);
    }
    IHostMemory* buildSerializedNetwork(INetworkDefinition& network,
                                        IBuilderConfig& config) noexcept override {
        const std::string& text = static_cast<Network&>(network).text;
        expect(static_cast<Config&>(config).verbosity == ProfilingVerbosity::kDETAILED,
               "the plan would lack details");
        if (has(text, "unbuildable")) {
            logger_.log(ILogger::Severity::kERROR, "no tactic fits");
            logger_.log(ILogger::Severity::kINFO, "of no interest");
            return nullptr;
        }
        ++state().builds;
        return new Memory("fake-plan" + text.substr(std::strlen("fake-onnx")));
    }

  private:
    ILogger& logger_;
    Counted counted_{"builder", nullptr};
};

struct ParserError : nvonnxparser::IParserError {
    char const* desc() const override { return "no such op"; }
    int node() const override { return 7; }
};

struct Parser : nvonnxparser::IParser {
    explicit Parser(Network& network)
        : network_(network), counted_("parser", &network.counted.children) {}
    bool parse(void const* onnx, std::size_t size, const char*) noexcept override {
        network_.text.assign(static_cast<const char*>(onnx), size);
        return network_.text.rfind("fake-onnx", 0) == 0 && !has(network_.text, "unreadable");
    }
    int getNbErrors() const noexcept override { return 1; }
    nvonnxparser::IParserError const* getError(int) const noexcept override { return &error_; }

  private:
    Network& network_;
    ParserError error_;
    Counted counted_;
};

using Work = std::vector<std::function<void()>>;
Work* work_of(cudaStream_t stream) { return reinterpret_cast<Work*>(stream); }

struct Plan {
    std::string text;
    bool is_half = false;
    std::int64_t classes = 0;
    std::size_t element_bytes() const { return is_half ? 2 : 4; }
    bool has_features() const { return has(text, "features"); }
};

struct Context : IExecutionContext {
    Context(const Plan& plan, int* parent) : plan_(plan), counted_("context", parent) {}
    bool setTensorAddress(char const* name, void* data) noexcept override {
        addresses_[name] = data;
        return !has(plan_.text, "unbindable");
    }
    bool enqueueV3(cudaStream_t stream) noexcept override {
        if (has(plan_.text, "unrunnable")) {
            return false;
        }
        fake::state().nvtx_marked_runs += verbosity_ == ProfilingVerbosity::kNONE ? 0 : 1;
        work_of(stream)->push_back([this] {
            std::memcpy(addresses_.at("logits"), addresses_.at("input"),
                        static_cast<std::size_t>(plan_.classes) * plan_.element_bytes());
            if (plan_.has_features()) {
                std::memcpy(
                    addresses_.at("features"),
                    static_cast<const char*>(addresses_.at("input")) + 16 * plan_.element_bytes(),
                    8 * plan_.element_bytes());
            }
        });
        if (profiler_ != nullptr) {
            profiler_->reportLayerTime("conv", 0.002F);
            profiler_->reportLayerTime("gelu", 0.001F);
        }
        return true;
    }
    void setProfiler(IProfiler* profiler) noexcept override { profiler_ = profiler; }
    bool setNvtxVerbosity(ProfilingVerbosity verbosity) noexcept override {
        verbosity_ = verbosity;
        return true;
    }

  private:
    Plan plan_;
    std::map<std::string, void*> addresses_;
    IProfiler* profiler_ = nullptr;
    ProfilingVerbosity verbosity_ = ProfilingVerbosity::kDETAILED;
    Counted counted_;
};

struct Inspector : IEngineInspector {
    explicit Inspector(int* parent) : counted("inspector", parent) {}
    char const* getEngineInformation(LayerInformationFormat format) const noexcept override {
        expect(format == LayerInformationFormat::kJSON, "the inspector was not asked for JSON");
#if NV_TENSORRT_MAJOR < 11
        return R"({"Layers": [
            {"Name": "conv", "LayerType": "CaskConvolution", "Inputs": [{"Format/Datatype": "Int8"}]},
            {"Name": "gelu", "LayerType": "PointWiseV2", "Inputs": [{"Format/Datatype": "Half"}]}],
            "Bindings": ["input", "logits"]})";
#else
        return R"({"Layers": [
            {"Name": "conv", "LayerType": "conv", "Inputs": [{"Format": "kCHW32", "DataType": "Int8"}]},
            {"Name": "gelu", "LayerType": "kgen", "Inputs": [{"Format": "kLINEAR", "DataType": "Half"}]}],
            "I/O Tensors": []})";
#endif
    }
    Counted counted;
};

struct Engine : ICudaEngine {
    Engine(Plan plan, int* parent) : plan_(std::move(plan)), counted_("engine", parent) {}
    std::int32_t getNbIOTensors() const noexcept override { return plan_.has_features() ? 3 : 2; }
    char const* getIOTensorName(std::int32_t index) const noexcept override {
        return index == 0 ? "input" : index + 1 == getNbIOTensors() ? "logits" : "features";
    }
    TensorIOMode getTensorIOMode(char const* name) const noexcept override {
        return is_input(name) ? TensorIOMode::kINPUT : TensorIOMode::kOUTPUT;
    }
    DataType getTensorDataType(char const* name) const noexcept override {
        if (is_input(name) && has(plan_.text, "boolean")) {
            return DataType::kBOOL;
        }
        return plan_.is_half ? DataType::kHALF : DataType::kFLOAT;
    }
    Dims getTensorShape(char const* name) const noexcept override {
        return is_input(name)                    ? Dims{4, {1, 3, 8, 8}}
               : std::string(name) == "features" ? Dims{4, {1, 2, 2, 2}}
                                                 : Dims{2, {1, plan_.classes}};
    }
    TensorFormat getTensorFormat(char const*) const noexcept override {
        return has(plan_.text, "vectorized") ? TensorFormat::kCHW4 : TensorFormat::kLINEAR;
    }
    IExecutionContext* createExecutionContext() noexcept override {
        return new Context(plan_, &counted_.children);
    }
    IEngineInspector* createEngineInspector() const noexcept override {
        return new Inspector(&counted_.children);
    }

  private:
    static bool is_input(char const* name) { return std::string(name) == "input"; }
    Plan plan_;
    mutable Counted counted_;
};

struct Runtime : IRuntime {
    explicit Runtime(ILogger& logger) : logger_(logger) {}
    ICudaEngine* deserializeCudaEngine(void const* blob, std::size_t size) noexcept override {
        Plan plan;
        plan.text.assign(static_cast<const char*>(blob), size);
        if (has(plan.text, "unloadable")) {
            logger_.log(ILogger::Severity::kINTERNAL_ERROR, "made for another GPU");
            return nullptr;
        }
        std::istringstream words(plan.text);
        std::string kind, dtype;
        words >> kind >> dtype >> plan.classes;
        plan.is_half = dtype == "float16";
        return new Engine(plan, &counted_.children);
    }

  private:
    ILogger& logger_;
    Counted counted_{"runtime", nullptr};
};

}  // namespace
}  // namespace fake

std::int32_t getInferLibVersion() noexcept { return NV_TENSORRT_MAJOR * 10000 + 305; }

nvinfer1::IBuilder* nvinfer1::createInferBuilder(ILogger& logger) noexcept {
    return new fake::Builder(logger);
}
nvinfer1::IRuntime* nvinfer1::createInferRuntime(ILogger& logger) noexcept {
    return new fake::Runtime(logger);
}
nvonnxparser::IParser* nvonnxparser::createParser(nvinfer1::INetworkDefinition& network,
                                                  nvinfer1::ILogger&) noexcept {
    return new fake::Parser(static_cast<fake::Network&>(network));
}

const char* cudaGetErrorString(cudaError_t error) {
    return error == cudaErrorNoDevice ? "no CUDA-capable device is detected" : "another error";
}
cudaError_t cudaGetDeviceCount(int* count) {
    *count = fake::state().gpus;
    return *count > 0 ? cudaSuccess : cudaErrorNoDevice;
}
cudaError_t cudaGetDevice(int* device) {
    *device = 0;
    return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* prop, int) {
    *prop = {};
    std::strncpy(prop->name, fake::state().gpu_name.c_str(), sizeof prop->name - 1);
    prop->major = 8;
    prop->minor = 7;
    prop->multiProcessorCount = fake::state().multiprocessors;
    return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
    *version = fake::state().driver;
    return cudaSuccess;
}
cudaError_t cudaMalloc(void** memory, std::size_t size) {
    ++fake::state().live;
    *memory = std::malloc(size);
    return cudaSuccess;
}
cudaError_t cudaFree(void* memory) {
    --fake::state().live;
    std::free(memory);
    return cudaSuccess;
}
cudaError_t cudaHostAlloc(void** memory, std::size_t size, unsigned int) {
    return cudaMalloc(memory, size);
}
cudaError_t cudaFreeHost(void* memory) { return cudaFree(memory); }
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t size, cudaMemcpyKind,
                            cudaStream_t stream) {
    fake::work_of(stream)->push_back([=] { std::memcpy(to, from, size); });
    return cudaSuccess;
}
cudaError_t cudaStreamCreate(cudaStream_t* stream) {
    ++fake::state().live;
    *stream = reinterpret_cast<cudaStream_t>(new fake::Work);
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    --fake::state().live;
    delete fake::work_of(stream);
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    for (const auto& step : *fake::work_of(stream)) {
        step();
    }
    fake::work_of(stream)->clear();
    return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* event) {
    ++fake::state().live;
    *event = reinterpret_cast<cudaEvent_t>(new int(0));
    return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
    --fake::state().live;
    delete reinterpret_cast<int*>(event);
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
    *reinterpret_cast<int*>(event) += 1;
    return cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t start, cudaEvent_t end) {
    const bool recorded = *reinterpret_cast<int*>(start) > 0 && *reinterpret_cast<int*>(end) > 0;
    *ms = 0.25F;
    return recorded ? cudaSuccess : cudaErrorInvalidValue;
}
