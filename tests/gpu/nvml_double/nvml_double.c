/* A test double of NVIDIA's management library. Its GPUs are those of throttllem_env/gpu/device_file.py: the
 * file that NVML_DOUBLE names is mapped, and the same rules hold. Drivers write clocks and idle energy under a
 * lock of the file, the engine writes what its iterations drew, and tests play the silicon's part.
 *
 *   gcc -shared -fPIC -O2 -pthread -Wl,-soname,libnvidia-ml.so.1 nvml_double.c -o libnvidia-ml.so.1
 *   NVML_DOUBLE=FILE LD_LIBRARY_PATH=FOLDER program
 *
 * Only what this project calls is here, with NVML's names, types and return codes. Handles are numbers, not
 * addresses, so that a stale one is an error and no crash.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { OK = 0, UNINIT = 1, INVALID = 2, NOSUP = 3, NOPERM = 4, NOTFOUND = 6, SIZE = 7, NODRIVER = 9, LOST = 15 };
enum { F_NOPERM = 1, F_LOST = 2, F_NOSUP = 4, F_SILENT = 8, F_SLOW = 16, F_NOCOUNTER = 32 };
enum { MAX_CLOCKS = 256, SLOW_US = 200000 };
#define MAGIC 0x5550474D54485254ull
#define VERSION 1
#define IDLE_REASON 1ull
/* Utilisation is a share of the last sample period; NVML's is between 1/6 s and 1 s. */
#define SAMPLE_NS 200000000ull
#define API __attribute__((visibility("default")))

typedef struct {
    uint64_t magic;
    uint32_t version, gpus, clocks, mem_mhz, power_limit_mw, default_mhz;
    char name[96];
    uint32_t clock_mhz[MAX_CLOCKS];
    double idle_w[MAX_CLOCKS];
} header_t;

typedef struct {
    uint32_t sm_mhz, locked_min_mhz, locked_max_mhz, sets, resets, persistence;
    double idle_j;
    uint64_t idle_until_ns;
    double busy_j, busy_w;
    uint64_t busy_until_ns, iterations;
    uint32_t faults, set_delay_us;
    uint64_t reasons, counter_wrap_mj;
    int64_t counter_base_mj;
    uint32_t mig, temperature_c;
    uint64_t published_mj, published_ns;
    uint32_t counter_period_us, late;
    double iteration_j, iteration_s;
    uint64_t late_max_ns, given_up_ns;
    char spare[72];
} gpu_t;

/* What the Python side checks its own layout against. */
typedef struct { const char *name; unsigned offset; } field_t;
#define H(f) {"header." #f, offsetof(header_t, f)}
#define D(f) {"gpu." #f, offsetof(gpu_t, f)}
static const field_t FIELDS[] = {
    H(magic), H(version), H(gpus), H(clocks), H(mem_mhz), H(power_limit_mw), H(default_mhz), H(name), H(clock_mhz),
    H(idle_w), {"header", sizeof(header_t)},
    D(sm_mhz), D(locked_min_mhz), D(locked_max_mhz), D(sets), D(resets), D(persistence), D(idle_j), D(idle_until_ns),
    D(busy_j), D(busy_w), D(busy_until_ns), D(iterations), D(faults), D(set_delay_us), D(reasons), D(counter_wrap_mj),
    D(counter_base_mj), D(mig), D(temperature_c), D(published_mj), D(published_ns), D(counter_period_us), D(late),
    D(iteration_j), D(iteration_s), D(late_max_ns), D(given_up_ns), D(spare),
    {"gpu", sizeof(gpu_t)},
};
/* The i-th field's name and offset; a name without a field stands for a size. -1 after the last. */
API int double_layout(unsigned i, char *name, unsigned n) {
    if (i >= sizeof FIELDS / sizeof *FIELDS) return -1;
    snprintf(name, n, "%s", FIELDS[i].name);
    return (int)FIELDS[i].offset;
}

/* `session` counts how often the file was mapped: what began in an earlier session has lost its GPUs. */
static struct { int refs, fd; unsigned session; size_t size; header_t *header; gpu_t *gpu; } S;
/* flock() keeps processes apart, this keeps the threads of one apart. */
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static void wait_us(uint32_t us) {
    struct timespec t = {us / 1000000, (long)(us % 1000000) * 1000};
    while (nanosleep(&t, &t)) {}
}

static void take_turn(void) {
    pthread_mutex_lock(&turn);
    while (flock(S.fd, LOCK_EX)) {}
}

static void end_turn(void) {
    flock(S.fd, LOCK_UN);
    pthread_mutex_unlock(&turn);
}

static double idle_w(uint32_t mhz) {
    unsigned best = 0;
    for (unsigned i = 1; i < S.header->clocks; i++)
        if (llabs((long long)S.header->clock_mhz[i] - mhz) < llabs((long long)S.header->clock_mhz[best] - mhz)) best = i;
    return S.header->idle_w[best];
}

/* Account for idle power up to now; in one's turn. */
static void settle(gpu_t *g) {
    uint64_t now = now_ns();
    g->idle_j += idle_w(g->sm_mhz) * (double)(int64_t)(now - g->idle_until_ns) / 1e9;
    g->idle_until_ns = now;
}

static uint64_t total_mj(const gpu_t *g) {
    int64_t mj = (int64_t)((g->idle_j + g->busy_j) * 1e3) + g->counter_base_mj;
    if (mj < 0) mj = 0;
    return g->counter_wrap_mj ? (uint64_t)mj % g->counter_wrap_mj : (uint64_t)mj;
}

static int was_busy(const gpu_t *g) { return now_ns() < g->busy_until_ns + SAMPLE_NS; }

/* --- library --- */

static int map_file(void) {
    const char *path = getenv("NVML_DOUBLE");
    struct stat st;
    if (!path || (S.fd = open(path, O_RDWR | O_CLOEXEC)) < 0) return NODRIVER;
    if (fstat(S.fd, &st) || (size_t)st.st_size < sizeof(header_t)) { close(S.fd); return NODRIVER; }
    S.size = (size_t)st.st_size;
    void *at = mmap(0, S.size, PROT_READ | PROT_WRITE, MAP_SHARED, S.fd, 0);
    if (at == MAP_FAILED) { close(S.fd); return NODRIVER; }
    S.header = at;
    S.gpu = (gpu_t *)(S.header + 1);
    S.session++;
    if (S.header->magic == MAGIC && S.header->version == VERSION
        && S.size >= sizeof(header_t) + S.header->gpus * sizeof(gpu_t)) return OK;
    munmap(at, S.size);
    close(S.fd);
    return NODRIVER;
}

API int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    pthread_mutex_lock(&turn);
    int r = S.refs ? OK : map_file();
    if (!r) S.refs++;
    pthread_mutex_unlock(&turn);
    return r;
}
API int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
API int nvmlInit(void) { return nvmlInitWithFlags(0); }

API int nvmlShutdown(void) {
    int r = OK;
    pthread_mutex_lock(&turn);
    if (!S.refs) r = UNINIT;
    else if (!--S.refs) { munmap(S.header, S.size); close(S.fd); }
    pthread_mutex_unlock(&turn);
    return r;
}

API const char *nvmlErrorString(int r) {
    switch (r) {
    case OK: return "Success";
    case UNINIT: return "Uninitialized";
    case INVALID: return "Invalid Argument";
    case NOSUP: return "Not Supported";
    case NOPERM: return "Insufficient Permissions";
    case NOTFOUND: return "Not Found";
    case SIZE: return "Insufficient Size";
    case NODRIVER: return "Driver Not Loaded";
    case LOST: return "GPU is lost";
    default: return "Unknown Error";
    }
}

#define TEXT(b, n, ...) return snprintf(b, n, __VA_ARGS__) < (int)(n) ? OK : SIZE
API int nvmlSystemGetDriverVersion(char *b, unsigned n) { if (!S.refs) return UNINIT; TEXT(b, n, "999.0-double"); }
API int nvmlSystemGetNVMLVersion(char *b, unsigned n) { if (!S.refs) return UNINIT; TEXT(b, n, "13.999.0-double"); }
API int nvmlSystemGetCudaDriverVersion_v2(int *v) { if (!S.refs) return UNINIT; *v = 13000; return OK; }
API int nvmlSystemGetCudaDriverVersion(int *v) { return nvmlSystemGetCudaDriverVersion_v2(v); }

/* --- devices --- */

API int nvmlDeviceGetCount_v2(unsigned *n) { if (!S.refs) return UNINIT; *n = S.header->gpus; return OK; }

API int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **h) {
    if (!S.refs) return UNINIT;
    if (i >= S.header->gpus) return INVALID;
    *h = (void *)(uintptr_t)(i + 1);
    return S.gpu[i].faults & F_LOST ? LOST : OK;
}

#define UUID "GPU-00000000-0000-0000-0000-%012u"
API int nvmlDeviceGetHandleByUUID(const char *uuid, void **h) {
    char own[64];
    if (!S.refs) return UNINIT;
    for (unsigned i = 0; i < S.header->gpus; i++) {
        snprintf(own, sizeof own, UUID, i);
        if (!strcmp(own, uuid)) return nvmlDeviceGetHandleByIndex_v2(i, h);
    }
    return NOTFOUND;
}

#define G                                                     \
    if (!S.refs) return UNINIT;                               \
    uintptr_t number = (uintptr_t)h;                          \
    if (number < 1 || number > S.header->gpus) return INVALID; \
    gpu_t *g = &S.gpu[number - 1];                            \
    if (g->faults & F_LOST) return LOST;                      \
    (void)g

API int nvmlDeviceGetIndex(void *h, unsigned *v) { G; *v = (unsigned)(number - 1); return OK; }
API int nvmlDeviceGetName(void *h, char *b, unsigned n) { G; TEXT(b, n, "%.95s", S.header->name); }
API int nvmlDeviceGetUUID(void *h, char *b, unsigned n) { G; TEXT(b, n, UUID, (unsigned)(number - 1)); }

typedef struct {
    char legacy_id[16];
    unsigned domain, bus, device, device_id, subsystem_id;
    char id[32];
} pci_t;
API int nvmlDeviceGetPciInfo_v3(void *h, pci_t *v) {
    G;
    memset(v, 0, sizeof *v);
    v->bus = (unsigned)number;
    snprintf(v->legacy_id, sizeof v->legacy_id, "0000:%02X:00.0", v->bus & 0xff);
    snprintf(v->id, sizeof v->id, "00000000:%02X:00.0", v->bus & 0xff);
    return OK;
}

API int nvmlDeviceGetPersistenceMode(void *h, unsigned *v) { G; *v = g->persistence; return OK; }
API int nvmlDeviceGetMigMode(void *h, unsigned *now, unsigned *next) { G; *now = *next = g->mig; return OK; }

API int nvmlDeviceGetSupportedMemoryClocks(void *h, unsigned *n, unsigned *c) {
    G;
    unsigned room = *n;
    *n = 1;
    if (!c || room < 1) return SIZE;
    c[0] = S.header->mem_mhz;
    return OK;
}

API int nvmlDeviceGetSupportedGraphicsClocks(void *h, unsigned mem_mhz, unsigned *n, unsigned *c) {
    G;
    unsigned room = *n, count = S.header->clocks;
    if (mem_mhz != S.header->mem_mhz) return INVALID;
    *n = count;
    if (!c || room < count) return SIZE;
    for (unsigned i = 0; i < count; i++) c[i] = S.header->clock_mhz[count - 1 - i]; /* descending, as on an A100 */
    return OK;
}

/* Faults of a change, and the time that it takes; it has its turn when this says OK. Who shuts the library down
 * meanwhile, having waited long enough, takes the GPUs away: nothing of them may be touched then. */
static int begin_change(gpu_t *g, unsigned session) {
    if (g->faults & F_NOPERM) return NOPERM;
    if (g->faults & F_NOSUP) return NOSUP;
    wait_us(g->faults & F_SLOW ? SLOW_US : g->set_delay_us);
    pthread_mutex_lock(&turn);
    if (!S.refs || S.session != session) {
        pthread_mutex_unlock(&turn);
        return UNINIT;
    }
    while (flock(S.fd, LOCK_EX)) {}
    if (!(g->faults & F_LOST)) return OK;
    end_turn();
    return LOST;
}

API int nvmlDeviceSetGpuLockedClocks(void *h, unsigned lo, unsigned hi) {
    unsigned session = S.session;
    G;
    if (lo > hi || hi < S.header->clock_mhz[0] || hi > S.header->clock_mhz[S.header->clocks - 1]) return INVALID;
    int r = begin_change(g, session);
    if (r) return r;
    settle(g);
    g->sets++;
    if (!(g->faults & F_SILENT)) {
        g->locked_min_mhz = lo;
        g->locked_max_mhz = hi;
        g->sm_mhz = hi < S.header->default_mhz ? hi : S.header->default_mhz;
    }
    end_turn();
    return OK;
}

API int nvmlDeviceResetGpuLockedClocks(void *h) {
    unsigned session = S.session;
    G;
    int r = begin_change(g, session);
    if (r) return r;
    settle(g);
    g->resets++;
    if (!(g->faults & F_SILENT)) {
        g->locked_min_mhz = g->locked_max_mhz = 0;
        g->sm_mhz = S.header->default_mhz;
    }
    end_turn();
    return OK;
}

/* Types of clocks: graphics 0, SM 1, memory 2. */
API int nvmlDeviceGetClockInfo(void *h, int type, unsigned *v) {
    G;
    if (type < 0 || type > 2) return INVALID;
    *v = type == 2 ? S.header->mem_mhz : g->sm_mhz;
    return OK;
}
API int nvmlDeviceGetMaxClockInfo(void *h, int type, unsigned *v) {
    G;
    if (type < 0 || type > 2) return INVALID;
    *v = type == 2 ? S.header->mem_mhz : S.header->clock_mhz[S.header->clocks - 1];
    return OK;
}

API int nvmlDeviceGetPowerUsage(void *h, unsigned *mw) {
    G;
    *mw = (unsigned)(1e3 * (now_ns() < g->busy_until_ns ? g->busy_w : idle_w(g->sm_mhz)));
    return OK;
}
API int nvmlDeviceGetPowerManagementLimit(void *h, unsigned *mw) { G; *mw = S.header->power_limit_mw; return OK; }
API int nvmlDeviceGetEnforcedPowerLimit(void *h, unsigned *mw) { return nvmlDeviceGetPowerManagementLimit(h, mw); }

API int nvmlDeviceGetTotalEnergyConsumption(void *h, unsigned long long *mj) {
    G;
    if (g->faults & F_NOCOUNTER) return NOSUP;
    take_turn();
    settle(g);
    uint64_t period_ns = 1000ull * g->counter_period_us;
    if (g->idle_until_ns >= g->published_ns + period_ns) {
        g->published_mj = total_mj(g);
        g->published_ns = g->idle_until_ns;
    }
    *mj = g->published_mj;
    end_turn();
    return OK;
}

API int nvmlDeviceGetCurrentClocksEventReasons(void *h, unsigned long long *v) {
    G;
    *v = g->reasons | (was_busy(g) ? 0 : IDLE_REASON);
    return OK;
}
API int nvmlDeviceGetCurrentClocksThrottleReasons(void *h, unsigned long long *v) {
    return nvmlDeviceGetCurrentClocksEventReasons(h, v);
}

typedef struct { unsigned gpu, memory; } utilization_t;
API int nvmlDeviceGetUtilizationRates(void *h, utilization_t *v) {
    G;
    v->gpu = v->memory = was_busy(g) ? 100 : 0;
    return OK;
}

API int nvmlDeviceGetTemperature(void *h, int sensor, unsigned *c) {
    G;
    if (sensor) return INVALID;
    *c = g->temperature_c;
    return OK;
}
