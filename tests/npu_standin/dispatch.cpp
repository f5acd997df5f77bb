// A stand-in, not a vendor's: LiteRT's dispatch library for an NPU that is not there. LiteRT 2.3.0
// loads it, hands it the program in a .tflite and its buffers, and takes its answer for the NPU's.
// It computes nothing: the answer is the first bytes of the input. EDGEVIT_STANDIN_FAILS names the
// step that fails instead: "initialize", "program", "invoke", or "later", the third and every later
// inference.
//
// Only what LiteRT 2.3.0 calls for one program is filled in; the places of the tables were read out
// of LiteRT and of a vendor's library in its wheel.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

using Status = int;
using Function = void (*)();

constexpr Status kOk = 0, kFailed = 3;
constexpr int kHostMemory = 1, kRead = 0, kWrite = 1;

struct TensorType {
    std::int32_t element_type;
    unsigned rank : 7;
    unsigned has_strides : 1;
    std::int32_t dimensions[8];
    std::uint32_t strides[8];
};

Status (*make_requirements)(int, const int*, std::size_t, int, const std::uint32_t*, void**);
Status (*lock_buffer)(void*, void**, int);
Status (*unlock_buffer)(void*);
std::array<void*, 16> buffers;
std::size_t input_bytes, output_bytes;
std::uint64_t input, output;

bool fails(const char* step) {
    const char* wanted = std::getenv("EDGEVIT_STANDIN_FAILS");
    return wanted != nullptr && std::strcmp(wanted, step) == 0;
}

template <typename T>
void take(T*& function, const Function* runtime, std::size_t place) {
    function = reinterpret_cast<T*>(runtime[place]);
}

// `runtime` is LiteRT's own table of functions, behind a header.
Status initialize(const Function* runtime, void*, void*) {
    take(make_requirements, runtime, 1);
    take(lock_buffer, runtime, 28);
    take(unlock_buffer, runtime, 29);
    return fails("initialize") ? kFailed : kOk;
}

Status name_vendor(const char** name) { return *name = "edgevit's stand-in", kOk; }
Status tell_capabilities(int* basic) { return *basic = 1, kOk; }
Status make_device(void*, void*, void** device) { return *device = &buffers, kOk; }
Status nothing() { return kOk; }

Status require(const TensorType* type, std::size_t& size, void** made) {
    size = type->element_type == 1 ? 4 : 1;  // float32, else 8 bits
    for (unsigned i = 0; i < type->rank; ++i) {
        size *= static_cast<std::size_t>(type->dimensions[i]);
    }
    return make_requirements(1, &kHostMemory, size, 0, nullptr, made);
}
Status require_input(void*, int, const TensorType* type, void** made) {
    return require(type, input_bytes, made);
}
Status require_output(void*, int, const TensorType* type, void** made) {
    return require(type, output_bytes, made);
}

Status register_buffer(void*, void* buffer, std::uint64_t* handle) {
    const auto free = std::find(buffers.begin(), buffers.end(), nullptr);
    if (free == buffers.end()) {
        return kFailed;
    }
    *free = buffer;
    return *handle = static_cast<std::uint64_t>(free - buffers.begin()), kOk;
}
Status unregister_buffer(void*, std::uint64_t handle) { return buffers[handle] = nullptr, kOk; }

Status load_program(void*, void* device, int, const void*, const char* name, int inputs,
                    int outputs, void** context) {
    *context = device;
    return fails("program") || name == nullptr || inputs != 1 || outputs != 1 ? kFailed : kOk;
}

Status attach_input(void*, int, std::uint64_t handle) { return input = handle, kOk; }
Status attach_output(void*, int, std::uint64_t handle) { return output = handle, kOk; }

Status invoke(void*) {
    void *from = nullptr, *to = nullptr;
    static int inferences = 0;
    const bool is_worn = ++inferences >= 3 && fails("later");
    if (is_worn || fails("invoke") || lock_buffer(buffers[input], &from, kRead) != kOk) {
        return kFailed;
    }
    const bool is_open = lock_buffer(buffers[output], &to, kWrite) == kOk;
    if (is_open) {
        std::memcpy(to, from, std::min(input_bytes, output_bytes));
        unlock_buffer(buffers[output]);
    }
    unlock_buffer(buffers[input]);
    return is_open ? kOk : kFailed;
}

template <typename T>
Function slot(T* function) {
    return reinterpret_cast<Function>(function);
}

// The table's other places are empty.
const std::array<Function, 32> table = [] {
    std::array<Function, 32> made = {
        slot(initialize),        slot(name_vendor),    slot(name_vendor),
        slot(tell_capabilities), slot(make_device),    slot(nothing),
        slot(require_input),     slot(require_output), slot(register_buffer),
        slot(unregister_buffer), slot(load_program),   slot(nothing),
        slot(nothing),           slot(attach_input),   slot(attach_output),
        slot(nothing),           slot(nothing),        slot(invoke)};
    made[23] = slot(nothing);  // whether it goes with this LiteRT
    return made;
}();

struct Api {
    std::uint64_t header;
    std::int32_t major, minor, patch;
    const void* interfaces[4];  // the basic one, then those for events, graphs and buffers
};

}  // namespace

extern "C" __attribute__((visibility("default"))) Status LiteRtDispatchGetApi(Api* api) {
    *api = {0, 0, 1, 0, {table.data(), nullptr, nullptr, nullptr}};
    return kOk;
}
