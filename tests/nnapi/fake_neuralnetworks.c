/* A stand-in for Android's libneuralnetworks.so: one accelerator that takes every operation of an
 * NNAPI feature level (5, Android 12, unless told otherwise) and computes nothing.
 *
 * TFLite's NNAPI delegate then shows on any Linux machine how it divides a graph. A real driver may
 * take less: it sees operand types, shapes and scales, of which nothing is looked at here.
 * The two edgevit_* functions tell what was compiled.
 */
#define _GNU_SOURCE
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { OK = 0, OUT_OF_MEMORY = 1, BAD_DATA = 4 };
enum { ACCELERATOR = 4 };
#ifndef FEATURE_LEVEL
#define FEATURE_LEVEL 31   /* levels are numbered as Android's API is */
#define LAST_OPERATION 101 /* ANEURALNETWORKS_RANK: levels 4 and 5 end with it */
#endif
enum { MAX_OPERATIONS = 4096, MAX_COMPILATIONS = 256 };

typedef struct {
    int count;
    int32_t codes[MAX_OPERATIONS];
} Model;

static int compilations;
static int operations[MAX_COMPILATIONS];
static char handle; /* its address stands for everything that is only passed back */

int edgevit_fake_compilations(void) { return compilations; }
int edgevit_fake_operations(int compilation) { return operations[compilation]; }

int ANeuralNetworksModel_create(Model** model) {
    *model = calloc(1, sizeof(Model));
    return *model ? OK : OUT_OF_MEMORY;
}

void ANeuralNetworksModel_free(Model* model) { free(model); }

int ANeuralNetworksModel_addOperation(Model* model, int32_t code, uint32_t input_count,
                                      const uint32_t* inputs, uint32_t output_count,
                                      const uint32_t* outputs) {
    (void)input_count, (void)inputs, (void)output_count, (void)outputs;
    if (model->count == MAX_OPERATIONS)
        return BAD_DATA;
    model->codes[model->count++] = code;
    return OK;
}

int ANeuralNetworksModel_getSupportedOperationsForDevices(const Model* model,
                                                          const void* const* devices,
                                                          uint32_t device_count, bool* supported) {
    (void)devices, (void)device_count;
    for (int i = 0; i < model->count; i++) {
        supported[i] = model->codes[i] >= 0 && model->codes[i] <= LAST_OPERATION;
    }
    return OK;
}

int ANeuralNetworksCompilation_createForDevices(const Model* model, const void* const* devices,
                                                uint32_t device_count, void** compilation) {
    (void)devices, (void)device_count;
    if (compilations == MAX_COMPILATIONS)
        return BAD_DATA;
    for (int i = 0; i < model->count; i++) {
        if (model->codes[i] < 0 || model->codes[i] > LAST_OPERATION)
            return BAD_DATA;
    }
    operations[compilations++] = model->count;
    *compilation = &handle;
    return OK;
}

int ANeuralNetworksCompilation_create(const Model* model, void** compilation) {
    return ANeuralNetworksCompilation_createForDevices(model, NULL, 0, compilation);
}

int ANeuralNetworks_getDeviceCount(uint32_t* count) { return *count = 1, OK; }
int ANeuralNetworks_getDevice(uint32_t index, void** device) {
    *device = &handle;
    return index == 0 ? OK : BAD_DATA;
}
int ANeuralNetworksDevice_getName(const void* device, const char** name) {
    (void)device;
    return *name = "edgevit-fake", OK;
}
int ANeuralNetworksDevice_getVersion(const void* device, const char** version) {
    (void)device;
    return *version = "1", OK;
}
int ANeuralNetworksDevice_getType(const void* device, int32_t* type) {
    (void)device;
    return *type = ACCELERATOR, OK;
}
int ANeuralNetworksDevice_getFeatureLevel(const void* device, int64_t* level) {
    (void)device;
    return *level = FEATURE_LEVEL, OK;
}
int ANeuralNetworksDevice_getExtensionSupport(const void* device, const char* name,
                                              bool* supported) {
    (void)device, (void)name;
    return *supported = false, OK;
}
int64_t ANeuralNetworks_getRuntimeFeatureLevel(void) { return FEATURE_LEVEL; }

int ANeuralNetworksExecution_create(void* compilation, void** execution) {
    (void)compilation;
    return *execution = &handle, OK;
}
int ANeuralNetworksBurst_create(void* compilation, void** burst) {
    (void)compilation;
    return *burst = &handle, OK;
}
int ANeuralNetworksMemory_createFromFd(size_t size, int protect, int fd, size_t offset,
                                       void** memory) {
    (void)size, (void)protect, (void)fd, (void)offset;
    return *memory = &handle, OK;
}
int ASharedMemory_create(const char* name, size_t size) {
    const int fd = memfd_create(name ? name : "nnapi", 0);
    if (fd >= 0 && ftruncate(fd, (off_t)size) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

/* Whatever only has to succeed. Old-style declarations: each is called with arguments of its own.
 */
#define SUCCEEDS(name) \
    int name() { return OK; }
SUCCEEDS(ANeuralNetworksBurst_free)
SUCCEEDS(ANeuralNetworksCompilation_finish)
SUCCEEDS(ANeuralNetworksCompilation_free)
SUCCEEDS(ANeuralNetworksCompilation_setCaching)
SUCCEEDS(ANeuralNetworksCompilation_setPreference)
SUCCEEDS(ANeuralNetworksCompilation_setPriority)
SUCCEEDS(ANeuralNetworksCompilation_setTimeout)
SUCCEEDS(ANeuralNetworksEvent_free)
SUCCEEDS(ANeuralNetworksEvent_wait)
SUCCEEDS(ANeuralNetworksExecution_burstCompute)
SUCCEEDS(ANeuralNetworksExecution_compute)
SUCCEEDS(ANeuralNetworksExecution_enableInputAndOutputPadding)
SUCCEEDS(ANeuralNetworksExecution_free)
SUCCEEDS(ANeuralNetworksExecution_setInput)
SUCCEEDS(ANeuralNetworksExecution_setInputFromMemory)
SUCCEEDS(ANeuralNetworksExecution_setLoopTimeout)
SUCCEEDS(ANeuralNetworksExecution_setMeasureTiming)
SUCCEEDS(ANeuralNetworksExecution_setOutput)
SUCCEEDS(ANeuralNetworksExecution_setOutputFromMemory)
SUCCEEDS(ANeuralNetworksExecution_setReusable)
SUCCEEDS(ANeuralNetworksExecution_setTimeout)
SUCCEEDS(ANeuralNetworksMemory_free)
SUCCEEDS(ANeuralNetworksModel_addOperand)
SUCCEEDS(ANeuralNetworksModel_finish)
SUCCEEDS(ANeuralNetworksModel_identifyInputsAndOutputs)
SUCCEEDS(ANeuralNetworksModel_relaxComputationFloat32toFloat16)
SUCCEEDS(ANeuralNetworksModel_setOperandSymmPerChannelQuantParams)
SUCCEEDS(ANeuralNetworksModel_setOperandValue)
SUCCEEDS(ANeuralNetworksModel_setOperandValueFromMemory)
