// Shared state and helpers of the stand-in CUDA runtime (libcudart.so.13).
//
// Device memory is host memory, work runs when it is submitted, kernels run from their PTX in the emulator.
// The environment variables are in the README.
#pragma once
#include <cuda_runtime_api.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "abi.hpp"

#define API extern "C" __attribute__((visibility("default"))) cudaError_t

// ---- the emulator's runtime library
extern "C" {
uint32_t pe_register(uint64_t address, uint64_t bytes, uint32_t kind);
int pe_unregister(uint64_t address);
uint64_t pe_alloc_size(uint64_t address);
int pe_find_alloc(uint64_t address, uint64_t *start, uint64_t *bytes); // the allocation that holds an address
int pe_launch(const KernelDesc *, const uint32_t *grid, const uint32_t *block, const uint32_t *cluster,
              const void *params, uint32_t dynamic_smem, const LaunchOptions *);
const char *pe_last_errors();
const uint64_t *pe_last_counters();
}

// ---- cudart_errors.cpp
cudaError_t set_error(cudaError_t error); // remember it as the last error

// ---- settings
enum : size_t { TOTAL_MEMORY = 80ull << 30 };

static inline int setting(const char *name, int otherwise) {
  const char *value = getenv(name);
  return value ? atoi(value) : otherwise;
}

static inline int architecture() { return setting("PTXEMU_SM", 90); }

// an H100's, an A100's and a T4's
static inline int by_architecture(int h100, int a100, int t4) {
  return architecture() >= 90 ? h100 : architecture() >= 80 ? a100 : t4;
}
static inline int sm_count() { return setting("PTXEMU_PROCESSORS", by_architecture(132, 108, 40)); }
static inline int shared_per_block() { return by_architecture(227, 163, 64) * 1024; }  // opted in
static inline int shared_per_sm() { return by_architecture(228, 164, 64) * 1024; }
static inline int threads_per_sm() { return by_architecture(2048, 2048, 1024); }

static inline bool logging() { return setting("PTXEMU_LOG", 0) != 0; }

// launches are noted and not run: a network's grids at a size that would take hours to execute
static inline bool listing() { return setting("PTXEMU_LIST", 0) != 0; }

#define LOG(...) \
  do { \
    if (logging()) { \
      fprintf(stderr, "[ptxemu] " __VA_ARGS__); \
      fputc('\n', stderr); \
    } \
  } while (0)

// ---- cudart_streams.cpp: streams, events, capture
typedef std::function<cudaError_t()> Work;

struct Graph {
  std::vector<Work> nodes;
};

typedef std::map<cudaStream_t, size_t> Clock; // how much of each stream's work a stream or event knows of

struct Capture {
  Graph *graph;
  cudaStream_t origin;
  cudaStreamCaptureMode mode;
  std::thread::id thread;
  unsigned long long id;
  bool invalid = false;
  std::map<cudaStream_t, Clock> clock; // one entry per stream taking part
};

struct Stream {
  unsigned flags;
  int priority;
};

struct Event {
  double milliseconds;
  unsigned long long capture = 0; // id of the capture it was recorded in
  bool recorded = false;
  Clock clock;
};

extern std::recursive_mutex g_capture_mutex; // guards the captures
extern std::vector<Capture *> g_captures;
extern thread_local cudaStreamCaptureMode t_capture_mode;
Capture *capture_of(cudaStream_t stream);
// report an error that invalidates a capture
cudaError_t capture_error(Capture *capture, cudaError_t error, const char *what, const char *why);
// an error if `what`, such as cudaMalloc, is not allowed while some stream captures
cudaError_t forbid_during_capture(const char *what);
// an error if the host would wait for a capturing stream (or, with `all`, for every stream)
cudaError_t forbid_sync(cudaStream_t stream, bool all, const char *what);
// do the work now, or record it when the stream is capturing
cudaError_t submit(cudaStream_t stream, const char *what, Work work);

// ---- fatbin.cpp, cudart_modules.cpp
struct FatBinary {
  const void *data;
  std::vector<std::string> ptx;
  bool parsed = false;
  bool has_machine_code = false, undecodable = false;
  bool has_variables = false; // then the kernels share one translation, so that they see the same variables
  std::map<std::string, void *> modules,
      functions; // translated modules by kernel ("" for all), handles by name
};

struct Function {
  FatBinary *fat;
  std::string name;
  const KernelDesc *kernel = nullptr;
  bool tried = false;
  std::string reason;
  int max_dynamic_smem = 48 * 1024; // dynamic shared memory it may use
};

void parse_fat(FatBinary *fat);
Function *find_function(const void *host_function);
// the translated module that holds a kernel ("": the variables), or null and the reason
const ModuleDesc *module_for(FatBinary *fat, const std::string &kernel, std::string &reason);
const KernelDesc *kernel_of(Function *function);
extern std::mutex g_launch; // launches and translations run one at a time

// ---- process.cpp
int scratch_file(std::string &name); // creates a temporary file and opens it
// run a program with settings (NAME=value) added to the environment; true when it succeeds
bool run_program(std::vector<std::string> words, const std::vector<std::string> &settings, bool with_stderr,
                 std::string &output);
