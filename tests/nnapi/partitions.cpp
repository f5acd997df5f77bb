// How TFLite's NNAPI delegate divides a model: one JSON line on standard output.
//
//   partitions libtensorflowlite_c.so libneuralnetworks.so model.tflite MAX_PARTITIONS
//
// The interpreter's own execution plan is read before and after the delegate, so the figures do not
// depend on what the NNAPI library says; what that compiled stands beside them. MAX_PARTITIONS is
// the delegate's limit, 0 for none, -1 for its default.
#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <stdexcept>
#include <string>

namespace {

// The parts of TFLite's C API (2.17) that are used: opaque handles, two structs, one enum value.
using Handle = void*;
constexpr int kBuiltinDelegate = 51;

struct IntArray {
    int size;
    int data[1];
};

struct NnapiOptions {
    int execution_preference;
    const char* accelerator_name;
    const char* cache_dir;
    const char* model_token;
    int disallow_nnapi_cpu;
    int allow_fp16;
    int max_number_delegated_partitions;
    void* support_library;
};

struct DelegateBuilder {
    void* data;
    int (*prepare)(Handle context, Handle delegate, void* data);
    void* copy_from_buffer;
    void* copy_to_buffer;
    void* free_buffer;
    std::int64_t flags;
};

class Library {
  public:
    explicit Library(const char* path) : handle_(dlopen(path, RTLD_NOW | RTLD_GLOBAL)) {
        if (handle_ == nullptr)
            throw std::runtime_error(dlerror());
    }

    template <typename Function>
    Function* get(const char* name) const {
        void* found = dlsym(handle_, name);
        if (found == nullptr)
            throw std::runtime_error(std::string(name) + " is missing");
        return reinterpret_cast<Function*>(found);
    }

  private:
    void* handle_;
};

/// Operators by their built-in code, as the execution plan has them at one moment.
struct Plan {
    explicit Plan(const Library& library)
        : plan_of(library.get<int(Handle, IntArray**)>("TfLiteOpaqueContextGetExecutionPlan")),
          node_of(library.get<int(Handle, int, Handle*, Handle*)>(
              "TfLiteOpaqueContextGetNodeAndRegistration")),
          code_of(library.get<int(Handle)>("TfLiteOperatorGetBuiltInCode")) {}

    int read(Handle context) {
        IntArray* plan = nullptr;
        if (plan_of(context, &plan) != 0)
            return 1;
        for (int i = 0; i < plan->size; i++) {
            Handle node = nullptr, operation = nullptr;
            if (node_of(context, plan->data[i], &node, &operation) != 0)
                return 1;
            counts[code_of(operation)]++;
            total++;
        }
        seen = true;
        return 0;
    }

    int (*plan_of)(Handle, IntArray**);
    int (*node_of)(Handle, int, Handle*, Handle*);
    int (*code_of)(Handle);
    std::map<int, int> counts;
    int total = 0;
    bool seen = false;
};

int read_plan(Handle context, Handle, void* plan) {
    return static_cast<Plan*>(plan)->read(context);
}

void run(char** arguments) {
    // TFLite opens libneuralnetworks.so by name; one that is loaded under that name is found first.
    const Library nnapi(arguments[2]);
    const Library tflite(arguments[1]);
    Handle model = tflite.get<Handle(const char*)>("TfLiteModelCreateFromFile")(arguments[3]);
    if (model == nullptr)
        throw std::runtime_error(std::string(arguments[3]) + ": not a model");

    Handle options = tflite.get<Handle()>("TfLiteInterpreterOptionsCreate")();
    auto* add = tflite.get<void(Handle, Handle)>("TfLiteInterpreterOptionsAddDelegate");
    auto* make = tflite.get<Handle(const DelegateBuilder*)>("TfLiteOpaqueDelegateCreate");
    Plan before(tflite), after(tflite);
    const DelegateBuilder first{&before, read_plan, nullptr, nullptr, nullptr, 0};
    const DelegateBuilder last{&after, read_plan, nullptr, nullptr, nullptr, 0};

    auto chosen = tflite.get<NnapiOptions()>("TfLiteNnapiDelegateOptionsDefault")();
    chosen.disallow_nnapi_cpu = 1;
    const int limit = std::atoi(arguments[4]);
    if (limit >= 0)
        chosen.max_number_delegated_partitions = limit;
    add(options, make(&first));
    add(options, tflite.get<Handle(const NnapiOptions*)>("TfLiteNnapiDelegateCreate")(&chosen));
    add(options, make(&last));

    Handle interpreter =
        tflite.get<Handle(Handle, Handle)>("TfLiteInterpreterCreate")(model, options);
    if (interpreter == nullptr)
        throw std::runtime_error("the delegates could not be applied");
    if (tflite.get<int(Handle)>("TfLiteInterpreterAllocateTensors")(interpreter) != 0) {
        throw std::runtime_error("the tensors could not be allocated");
    }
    if (!before.seen || !after.seen)
        throw std::runtime_error("the execution plan was not read");

    const int partitions = after.counts[kBuiltinDelegate];
    const int left_out = after.total - partitions;
    std::printf(
        "{\"tflite\": \"%s\", \"max_partitions\": %d, \"nodes\": %d, \"partitions\": %d, "
        "\"delegated\": %d, \"left_out\": {",
        tflite.get<const char*()>("TfLiteVersion")(), chosen.max_number_delegated_partitions,
        before.total, partitions, before.total - left_out);
    const char* separator = "";
    for (const auto& [code, count] : after.counts) {
        if (code == kBuiltinDelegate || count == 0)
            continue;
        std::printf("%s\"%d\": %d", separator, code, count);
        separator = ", ";
    }
    std::printf("}, \"compiled_operations\": [");
    const int compilations = nnapi.get<int()>("edgevit_fake_compilations")();
    auto* operations = nnapi.get<int(int)>("edgevit_fake_operations");
    for (int i = 0; i < compilations; i++)
        std::printf("%s%d", i ? ", " : "", operations(i));
    std::printf("]}\n");
    // The process ends here: nothing is worth freeing.
}

}  // namespace

int main(int count, char** arguments) {
    if (count != 5) {
        std::fprintf(stderr,
                     "usage: partitions TFLITE_LIBRARY NNAPI_LIBRARY MODEL MAX_PARTITIONS\n");
        return 2;
    }
    try {
        run(arguments);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "error: %s\n", error.what());
        return 1;
    }
    return 0;
}
