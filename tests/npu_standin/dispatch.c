/* A stand-in, not a vendor's: LiteRT's dispatch library for an NPU that is not there. LiteRT 2.3.0
 * loads it, hands it the program in a .tflite and its buffers, and takes its answer for the NPU's.
 * It computes nothing: the answer is the first bytes of the input. EDGEVIT_STANDIN_FAILS names the
 * step that fails instead: "initialize", "program" or "invoke".
 *
 * Only the slots that LiteRT 2.3.0 calls for one program are filled; the places of the tables were
 * read out of LiteRT and a vendor's library in its wheel. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef int status;
enum { OK = 0, FAILED = 3, HOST_MEMORY = 1, READ = 0, WRITE = 1, MOST_BUFFERS = 16 };

typedef struct {
    int32_t element_type;
    struct {
        unsigned rank : 7;
        unsigned has_strides : 1;
        int32_t dimensions[8];
        uint32_t strides[8];
    } layout;
} tensor_type;

static status (*requirements)(int, const int*, size_t, int, const uint32_t*, void**);
static status (*lock_buffer)(void*, void**, int);
static status (*unlock_buffer)(void*);
static void* buffers[MOST_BUFFERS];
static size_t input_bytes, output_bytes;
static uint64_t input, output;

static int fails(const char* step) {
    const char* wanted = getenv("EDGEVIT_STANDIN_FAILS");
    return wanted != NULL && strcmp(wanted, step) == 0;
}

/* `runtime` is LiteRT's own table of functions, behind a header. */
static status initialize(void* const* runtime, void* environment, void* options) {
    (void)environment, (void)options;
    *(void**)&requirements = runtime[1];
    *(void**)&lock_buffer = runtime[28];
    *(void**)&unlock_buffer = runtime[29];
    return fails("initialize") ? FAILED : OK;
}

static status vendor(const char** name) { return *name = "edgevit's stand-in", OK; }
static status capabilities(int* basic) { return *basic = 1, OK; }
static status make_device(void* runtime, void* options, void** device) {
    (void)runtime, (void)options;
    return *device = buffers, OK;
}
static status nothing(void) { return OK; }

static status needs(const tensor_type* type, size_t* size, void** made) {
    const int host = HOST_MEMORY;
    *size = type->element_type == 1 ? 4 : 1; /* float32, else 8 bits */
    for (unsigned i = 0; i < type->layout.rank; ++i) {
        *size *= (size_t)type->layout.dimensions[i];
    }
    return requirements(1, &host, *size, 0, NULL, made);
}
static status input_needs(void* context, int index, const tensor_type* type, void** made) {
    (void)context, (void)index;
    return needs(type, &input_bytes, made);
}
static status output_needs(void* context, int index, const tensor_type* type, void** made) {
    (void)context, (void)index;
    return needs(type, &output_bytes, made);
}

static status register_buffer(void* device, void* buffer, uint64_t* handle) {
    (void)device;
    for (uint64_t i = 0; i < MOST_BUFFERS; ++i) {
        if (buffers[i] == NULL) {
            buffers[i] = buffer;
            return *handle = i, OK;
        }
    }
    return FAILED;
}
static status unregister_buffer(void* device, uint64_t handle) {
    (void)device;
    return buffers[handle] = NULL, OK;
}

static status load_program(void* runtime, void* device, int type, const void* program,
                           const char* name, int inputs, int outputs, void** context) {
    (void)runtime, (void)type, (void)program;
    *context = device;
    return fails("program") || name == NULL || inputs != 1 || outputs != 1 ? FAILED : OK;
}

static status attach_input(void* context, int index, uint64_t handle) {
    (void)context, (void)index;
    return input = handle, OK;
}
static status attach_output(void* context, int index, uint64_t handle) {
    (void)context, (void)index;
    return output = handle, OK;
}

static status invoke(void* context) {
    void *from = NULL, *to = NULL;
    (void)context;
    if (fails("invoke") || lock_buffer(buffers[input], &from, READ) != OK) {
        return FAILED;
    }
    if (lock_buffer(buffers[output], &to, WRITE) != OK) {
        unlock_buffer(buffers[input]);
        return FAILED;
    }
    memcpy(to, from, output_bytes < input_bytes ? output_bytes : input_bytes);
    unlock_buffer(buffers[output]);
    unlock_buffer(buffers[input]);
    return OK;
}

#define SLOT(function) ((void (*)(void))(function))
static void (*const table[32])(void) = {
    SLOT(initialize), SLOT(vendor), SLOT(vendor), SLOT(capabilities), SLOT(make_device),
    SLOT(nothing), SLOT(input_needs), SLOT(output_needs), SLOT(register_buffer),
    SLOT(unregister_buffer), SLOT(load_program), SLOT(nothing), SLOT(nothing), SLOT(attach_input),
    SLOT(attach_output), SLOT(nothing), SLOT(nothing), SLOT(invoke), [23] = SLOT(nothing)};

typedef struct {
    uint64_t reserved;
    int32_t major, minor, patch;
    const void* interfaces[4]; /* the basic one, then those for events, graphs and buffers */
} api;

status LiteRtDispatchGetApi(api* found) {
    const api made = {0, 0, 1, 0, {table, NULL, NULL, NULL}};
    return *found = made, OK;
}
