// Kernel launches, function attributes, occupancy.
#include "standin.hpp"

#include <time.h>

struct CallConfiguration {
  dim3 g, b;
  size_t s;
  cudaStream_t st;
};

static thread_local std::vector<CallConfiguration> t_configurations;

extern "C" unsigned __cudaPushCallConfiguration(dim3 g, dim3 b, size_t s, cudaStream_t st) {
  t_configurations.push_back({g, b, s, st});
  return 0;
}

API __cudaPopCallConfiguration(dim3 *g, dim3 *b, size_t *s, void *st) {
  if (t_configurations.empty()) return set_error(cudaErrorMissingConfiguration);
  CallConfiguration c = t_configurations.back();
  t_configurations.pop_back();
  *g = c.g;
  *b = c.b;
  *s = c.s;
  *(cudaStream_t *)st = c.st;
  return cudaSuccess;
}

// ---------------------------------------------------------------- launches
std::mutex g_launch; // launches and translations run one at a time

struct LaunchConfig {
  dim3 g, b;
  size_t smem;
  cudaStream_t stream;
  uint32_t cluster[3] = {0, 0, 0};
  bool cooperative = false;
};

static int occupancy(Function *f, int bs, size_t dyn);

static cudaError_t run_kernel(Function *function, const KernelDesc *kernel, const LaunchConfig &config,
                              const std::vector<char> &params) {
  std::lock_guard<std::mutex> guard(g_launch);
  std::vector<char> buf(params.size() + 64);
  char *base = (char *)(((uint64_t)buf.data() + 63) & ~63ull);
  memcpy(base, params.data(), params.size());
  dim3 grid = config.g, block = config.b;
  size_t smem = config.smem;
  uint32_t grid_size[3] = {grid.x, grid.y, grid.z}, block_size[3] = {block.x, block.y, block.z};
  static const char *counter_file = getenv("PTXEMU_COUNTERS");
  LaunchOptions options{(uint32_t)setting("PTXEMU_COUNT", counter_file ? 2 : 1),
                        (uint32_t)setting("PTXEMU_RACE", 0),
                        (uint32_t)setting("PTXEMU_THREADS", 2),
                        (uint32_t)setting("PTXEMU_SEED", 0),
                        1u << 20,
                        (uint32_t)setting("PTXEMU_CHECK_INIT", 0),
                        2000,
                        config.cooperative,
                        1ull << setting("PTXEMU_MAX_BLOCKS_LOG2", 32)};
  timespec started, ended;
  clock_gettime(CLOCK_MONOTONIC, &started);
  int failed = 0;
  if (!listing())
    failed = pe_launch(kernel, grid_size, block_size, config.cluster[0] ? config.cluster : nullptr, base,
                       (uint32_t)smem, &options);
  clock_gettime(CLOCK_MONOTONIC, &ended);
  if (logging()) {
    const uint64_t *counters = pe_last_counters();
    uint64_t instructions = 0;
    for (int i = 0; i < CLASS_COUNT; i++) instructions += counters[i];
    LOG("launch %s grid (%u,%u,%u) block (%u,%u,%u) smem %zu: %.2f ms, %llu warp instructions",
        function->name.c_str(), grid.x, grid.y, grid.z, block.x, block.y, block.z, smem,
        (ended.tv_sec - started.tv_sec) * 1e3 + (ended.tv_nsec - started.tv_nsec) / 1e6,
        (unsigned long long)instructions);
  }
  if (counter_file) {
    FILE *log = fopen(counter_file, "a");
    if (log) {
      const uint64_t *counters = pe_last_counters();
      fprintf(log,
              "{\"kernel\": \"%s\", \"grid\": [%u,%u,%u], \"block\": [%u,%u,%u], \"smem\": %zu, \"ms\": "
              "%.3f, \"raw\": [",
              function->name.c_str(), grid.x, grid.y, grid.z, block.x, block.y, block.z, smem,
              (ended.tv_sec - started.tv_sec) * 1e3 + (ended.tv_nsec - started.tv_nsec) / 1e6);
      for (int i = 0; i < 2 * CLASS_COUNT + COUNTERS_AFTER_CLASSES; i++)
        fprintf(log, i ? ",%llu" : "%llu", (unsigned long long)counters[i]);
      fprintf(log, "]}\n");
      fclose(log);
    }
  }
  if (failed) {
    fprintf(stderr, "[ptxemu] %s", pe_last_errors());
    return set_error(cudaErrorLaunchFailure);
  }
  return cudaSuccess;
}

static cudaError_t launch_kernel(Function *function, const LaunchConfig &config, void **args) {
  if (!function) {
    fprintf(stderr, "[ptxemu] kernel launch: unknown function\n");
    return set_error(cudaErrorInvalidDeviceFunction);
  }
  const KernelDesc *kernel;
  {
    std::lock_guard<std::mutex> guard(g_launch);
    kernel = kernel_of(function);
  }
  if (!kernel) {
    fprintf(stderr, "[ptxemu] cannot run kernel %s: %s\n", function->name.c_str(), function->reason.c_str());
    return set_error(cudaErrorNoKernelImageForDevice);
  }
  if (config.g.y > 65535 || config.g.z > 65535 || config.b.x * config.b.y * config.b.z > 1024) {
    fprintf(stderr, "[ptxemu] kernel %s: grid (%u, %u, %u) of blocks (%u, %u, %u) is not possible\n",
            function->name.c_str(), config.g.x, config.g.y, config.g.z, config.b.x, config.b.y, config.b.z);
    return set_error(cudaErrorInvalidConfiguration);
  }
  if (config.smem + kernel->shared_static > 48 * 1024 && (int)config.smem > function->max_dynamic_smem) {
    fprintf(stderr,
            "[ptxemu] kernel %s: %zu bytes of dynamic shared memory without "
            "cudaFuncSetAttribute(MaxDynamicSharedMemorySize)\n",
            function->name.c_str(), config.smem);
    return set_error(cudaErrorInvalidValue);
  }
  uint64_t ctas = (uint64_t)config.g.x * config.g.y * config.g.z,
           fit =
               (uint64_t)occupancy(function, config.b.x * config.b.y * config.b.z, config.smem) * sm_count();
  if (config.cooperative && ctas > fit) {
    fprintf(stderr,
            "[ptxemu] kernel %s: cooperative launch of %llu blocks, but only %llu fit on the device\n",
            function->name.c_str(), (unsigned long long)ctas, (unsigned long long)fit);
    return set_error(cudaErrorCooperativeLaunchTooLarge);
  }
  std::vector<char> params(kernel->param_bytes);
  for (uint32_t i = 0; i < kernel->param_count; i++)
    memcpy(params.data() + kernel->param_offset[i], args[i], kernel->param_size[i]);
  return submit(config.stream, ("kernel " + function->name).c_str(),
                [=] { return run_kernel(function, kernel, config, params); });
}

API cudaLaunchKernel(const void *host_function, dim3 grid, dim3 block, void **args, size_t smem,
                     cudaStream_t stream) {
  return launch_kernel(find_function(host_function), LaunchConfig{grid, block, smem, stream}, args);
}

// cluster size and cooperative launch matter; programmatic dependent launch, priorities and the like are
// accepted and have no effect
static void apply_attributes(LaunchConfig &config, const cudaLaunchAttribute *a, unsigned blocks) {
  for (unsigned i = 0; i < blocks; i++) {
    if (a[i].id == cudaLaunchAttributeClusterDimension) {
      config.cluster[0] = a[i].val.clusterDim.x;
      config.cluster[1] = a[i].val.clusterDim.y;
      config.cluster[2] = a[i].val.clusterDim.z;
    } else if (a[i].id == cudaLaunchAttributeCooperative) config.cooperative = a[i].val.cooperative;
    else LOG("launch attribute %d has no effect", (int)a[i].id);
  }
}

API cudaLaunchKernelExC(const cudaLaunchConfig_t *launch, const void *host_function, void **args) {
  Function *function = find_function(host_function);
  LaunchConfig config{launch->gridDim, launch->blockDim, launch->dynamicSmemBytes, launch->stream};
  apply_attributes(config, launch->attrs, launch->numAttrs);
  return launch_kernel(function ? function : (Function *)host_function, config, args);
}

API cudaLaunchCooperativeKernel(const void *host_function, dim3 grid, dim3 block, void **args, size_t smem,
                                cudaStream_t stream) {
  LaunchConfig config{grid, block, smem, stream};
  config.cooperative = true;
  return launch_kernel(find_function(host_function), config, args);
}

API __cudaGetKernel(cudaKernel_t *kernel, const void *host_function) {
  Function *function = find_function(host_function);
  *kernel = (cudaKernel_t)function;
  return function ? cudaSuccess : set_error(cudaErrorInvalidDeviceFunction);
}

API __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void **args, size_t smem,
                       cudaStream_t stream) {
  return launch_kernel((Function *)kernel, LaunchConfig{grid, block, smem, stream}, args);
}

extern "C" cudaError_t __cudaLaunchKernel_ptsz(cudaKernel_t kernel, dim3 grid, dim3 block, void **args,
                                               size_t smem, cudaStream_t stream) {
  return __cudaLaunchKernel(kernel, grid, block, args, smem, stream);
}

API cudaGetKernel(cudaKernel_t *kernel, const void *host_function) {
  return __cudaGetKernel(kernel, host_function);
}

API cudaFuncSetAttribute(const void *host_function, cudaFuncAttribute a, int v) {
  Function *function = find_function(host_function);
  if (!function) return set_error(cudaErrorInvalidDeviceFunction);
  if (a == cudaFuncAttributeMaxDynamicSharedMemorySize) {
    if (v > 227 * 1024) return set_error(cudaErrorInvalidValue);
    function->max_dynamic_smem = v;
  }
  return cudaSuccess;
}

API cudaKernelSetAttributeForDevice(cudaKernel_t kernel, cudaFuncAttribute a, int v, int) {
  if (a == cudaFuncAttributeMaxDynamicSharedMemorySize) ((Function *)kernel)->max_dynamic_smem = v;
  return cudaSuccess;
}

API cudaFuncSetCacheConfig(const void *, cudaFuncCache) { return cudaSuccess; }

static cudaError_t func_attributes(cudaFuncAttributes *a, Function *function);

API cudaFuncGetAttributes(cudaFuncAttributes *a, const void *host_function) {
  return func_attributes(a, find_function(host_function));
}

static cudaError_t func_attributes(cudaFuncAttributes *a, Function *function) {
  memset(a, 0, sizeof *a);
  a->maxThreadsPerBlock = 1024;
  a->numRegs = 64;
  a->ptxVersion = 80;
  a->binaryVersion = setting("PTXEMU_SM", 90);
  if (!function) return set_error(cudaErrorInvalidDeviceFunction);
  a->maxDynamicSharedSizeBytes = function->max_dynamic_smem;
  parse_fat(function->fat);
  if (!function->fat->ptx.empty()) {
    const KernelDesc *kernel = kernel_of(function);
    if (!kernel) return set_error(cudaErrorNoKernelImageForDevice);
    a->sharedSizeBytes = kernel->shared_static;
    a->localSizeBytes = kernel->local_bytes;
    if (kernel->max_threads) a->maxThreadsPerBlock = kernel->max_threads;
  }
  return cudaSuccess;
}

static int occupancy(Function *function, int threads, size_t dyn) {
  uint32_t shared_static = 0;
  if (function) {
    parse_fat(function->fat);
    if (!function->fat->ptx.empty())
      if (const KernelDesc *kernel = kernel_of(function)) shared_static = kernel->shared_static;
  }
  int blocks = threads_per_sm() / (threads > 0 ? threads : 1);
  size_t stream = shared_static + dyn + 1024;
  int m = (int)(shared_per_sm() / stream);
  if (m < blocks) blocks = m;
  return blocks > 32 ? 32 : blocks;
}

API cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, const void *host_function,
                                                           int threads, size_t dyn, unsigned) {
  *blocks = occupancy(find_function(host_function), threads, dyn);
  return cudaSuccess;
}

API cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, const void *host_function, int threads,
                                                  size_t dyn) {
  *blocks = occupancy(find_function(host_function), threads, dyn);
  return cudaSuccess;
}

extern "C" int ptxemu_launch(void *host_function, dim3 grid, dim3 block, size_t smem, cudaStream_t stream,
                             const cudaLaunchAttribute *a, unsigned blocks, bool cooperative, void **args,
                             void **extra) {
  Function *function = (Function *)host_function;
  LaunchConfig config{grid, block, smem, stream};
  config.cooperative = cooperative;
  apply_attributes(config, a, blocks);
  std::vector<void *> v;
  if (!args &&
      extra) { // CU_LAUNCH_PARAM_BUFFER_POINTER (1), buffer, CU_LAUNCH_PARAM_BUFFER_SIZE (2), size, 0
    char *buf = nullptr;
    for (; *extra; extra += 2)
      if ((uint64_t)*extra == 1) buf = (char *)extra[1];
    for (uint32_t i = 0; i < function->kernel->param_count; i++)
      v.push_back(buf + function->kernel->param_offset[i]);
    args = v.data();
  }
  return launch_kernel(function, config, args);
}

// registers per thread as ptxas reported them (standin/ptxas appends its -v output to the PTX), else a guess
extern "C" int ptxemu_registers(void *fn) {
  Function *f = (Function *)fn;
  for (auto &s : f->fat->ptx) {
    size_t p = s.find("entry function '" + f->name + "'");
    if (p != std::string::npos) p = s.find("Used ", p);
    if (p != std::string::npos) return atoi(s.c_str() + p + 5);
  }
  return 64;
}

extern "C" int ptxemu_attributes(void *fn, cudaFuncAttributes *a) {
  return func_attributes(a, (Function *)fn);
}

extern "C" int ptxemu_max_dynamic_smem(void *fn, int v) {
  if (v < 0 || v > shared_per_block()) return cudaErrorInvalidValue;
  ((Function *)fn)->max_dynamic_smem = v;
  return cudaSuccess;
}

extern "C" int ptxemu_occupancy(void *fn, int bs, size_t dyn) { return occupancy((Function *)fn, bs, dyn); }
