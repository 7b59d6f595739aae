/* As NVIDIA's management library (nvml.h), of machines that FAKE_NVML names. */
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, DRIVER_NOT_LOADED = 9, LOST = 15 };
typedef struct { unsigned long long total, free, used; } memory_t;

static int is(const char *name) {
    const char *mode = getenv("FAKE_NVML");
    return mode != NULL && strcmp(mode, name) == 0;
}

/* A handle is 100 * (GPU + 1) + MIG device + 1, or + 0 for the GPU itself. */
static int gpu_of(void *device) { return (int)(long)device / 100 - 1; }
static int part_of(void *device) { return (int)(long)device % 100 - 1; }

int nvmlInit_v2(void) {
    if (is("hanging")) for (;;) pause();
    if (is("crashing")) abort();
    return is("failing") ? DRIVER_NOT_LOADED : SUCCESS;
}

const char *nvmlErrorString(int code) {
    switch (code) {
        case DRIVER_NOT_LOADED: return "Driver Not Loaded";
        case LOST: return "GPU is lost";
        default: return "Unknown Error";
    }
}

int nvmlSystemGetCudaDriverVersion_v2(int *version) { *version = 12040; return SUCCESS; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = is("none") ? 0 : 2; return SUCCESS; }

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    if (is("lost") && index == 0) return LOST;
    if (is("all lost")) return LOST;
    *device = (void *)(long)(100 * (index + 1));
    return SUCCESS;
}

int nvmlDeviceGetUUID(void *device, char *text, unsigned size) {
    if (part_of(device) < 0) snprintf(text, size, "GPU-8f6%c", 'a' + gpu_of(device));
    else snprintf(text, size, "MIG-%d%d-c0ffee", gpu_of(device), part_of(device));
    return SUCCESS;
}

int nvmlDeviceGetName(void *device, char *text, unsigned size) {
    snprintf(text, size, part_of(device) < 0 ? "NVIDIA A100" : "NVIDIA A100 MIG 3g.20gb");
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(void *device, memory_t *memory) {
    if (is("no memory")) return NOT_SUPPORTED;
    memory->total = 1ULL << (part_of(device) < 0 ? 35 : 34);
    memory->used = gpu_of(device) == 1 ? memory->total / 2 : 0;
    memory->free = memory->total - memory->used;
    return SUCCESS;
}

/* Of "MIG" the first GPU is divided into two, at places 0 and 2; of "empty" both are, into nothing. */
int nvmlDeviceGetMigMode(void *device, unsigned *now, unsigned *pending) {
    if (is("MIG") || is("empty")) {
        *now = *pending = is("empty") || gpu_of(device) == 0;
        return SUCCESS;
    }
    return NOT_SUPPORTED;
}

int nvmlDeviceGetMaxMigDeviceCount(void *device, unsigned *count) { *count = 7; return SUCCESS; }

int nvmlDeviceGetMigDeviceHandleByIndex(void *device, unsigned index, void **part) {
    if (is("empty") || (index != 0 && index != 2)) return NOT_FOUND;
    *part = (void *)((long)device + index + 1);
    return SUCCESS;
}

int nvmlDeviceGetGpuInstanceId(void *part, unsigned *id) { *id = part_of(part) + 1; return SUCCESS; }
int nvmlDeviceGetComputeInstanceId(void *part, unsigned *id) { *id = 0; return SUCCESS; }
