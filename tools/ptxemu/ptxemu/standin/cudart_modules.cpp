// Modules: registration by nvcc's start-up code, translation of PTX, variables.
#include "standin.hpp"

#include <dlfcn.h>
#include <unistd.h>
#include <mutex>

struct HostVariable {
  FatBinary *fat;
  std::string name;
  size_t size;
};

static std::mutex g_mu;

static std::unordered_map<const void *, Function *> &host_functions() {
  static auto *m = new std::unordered_map<const void *, Function *>();
  return *m;
}

static std::unordered_map<const void *, HostVariable> &host_variables() {
  static auto *m = new std::unordered_map<const void *, HostVariable>();
  return *m;
}

static std::map<const void *, std::string> &module_path() {
  static auto *m = new std::map<const void *, std::string>();
  return *m;
}

// PTX to a loaded module, through `python -m ptxemu translate`
static void *translate(const std::string &ptx, const std::string &only, std::string &err) {
  std::string name;
  int file = scratch_file(name);
  if (file < 0) {
    err = "no temporary file for its PTX";
    return nullptr;
  }
  bool written = write(file, ptx.data(), ptx.size()) == (ssize_t)ptx.size();
  close(file);
  const char *python = getenv("PTXEMU_PYTHON"), *root = getenv("PTXEMU_ROOT");
  std::vector<std::string> command = {python ? python : "python3", "-m", "ptxemu", "translate", name};
  if (!only.empty()) command.insert(command.end(), {"--only", only});
  std::vector<std::string> settings;
  if (root) settings.push_back(std::string("PYTHONPATH=") + root);
  std::string o;
  bool ok = written && run_program(command, settings, true, o);
  unlink(name.c_str());
  while (!o.empty() && o.back() == '\n') o.pop_back();
  if (!ok) {
    err = o;
    return nullptr;
  }
  size_t nl = o.rfind('\n');
  std::string so = nl == std::string::npos ? o : o.substr(nl + 1);
  void *h = dlopen(so.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!h) {
    err = dlerror();
    return nullptr;
  }
  const ModuleDesc *m = (const ModuleDesc *)dlsym(h, "pe_module");
  module_path()[m] = so;
  for (uint32_t i = 0; i < m->variable_count; i++)
    pe_register((uint64_t)m->variables[i].pointer, m->variables[i].size, m->variables[i].space);
  return (void *)m;
}

const ModuleDesc *module_for(FatBinary *fat, const std::string &kernel, std::string &err) {
  parse_fat(fat);
  const std::string *src = nullptr;
  int best = -1,
      dev = setting("PTXEMU_SM",
                    90); // newest PTX the device may run; arch-specific (sm_90a) only on its own architecture
  for (auto &s : fat->ptx)
    if (kernel.empty() || s.find(kernel) != std::string::npos) {
      size_t t = s.find(".target sm_");
      if (t == std::string::npos) continue;
      char *e;
      int a = strtol(s.c_str() + t + 11, &e, 10);
      bool spec = *e == 'a' || *e == 'fat';
      if (a > dev || (spec && a != dev)) continue;
      if (2 * a + spec > best) {
        best = 2 * a + spec;
        src = &s;
      }
    }
  if (!src && !fat->ptx.empty()) {
    err = "its fat binary holds no PTX for sm_" + std::to_string(dev);
    return nullptr;
  }
  if (!src) {
    err = fat->ptx.empty()
              ? (fat->undecodable ? "its PTX could not be decompressed"
                                  : "its fat binary holds no PTX (only machine code); build it with "
                                    "-gencode=arch=compute_80,code=compute_80")
              : "no PTX entry defines it";
    return nullptr;
  }
  std::string key = fat->has_variables ? "" : kernel;
  auto it = fat->modules.find(key);
  if (it != fat->modules.end()) return (const ModuleDesc *)it->second;
  void *module = translate(*src, key, err);
  if (module) fat->modules[key] = module;
  return (const ModuleDesc *)module;
}

// from the translator's list of kernels it could not handle
static std::string why_missing(const ModuleDesc *m, const std::string &kernel) {
  FILE *f = fopen((module_path()[m].substr(0, module_path()[m].rfind('.')) + ".reason").c_str(), "r");
  std::string s;
  for (int c; f && (c = fgetc(f)) != EOF;) s += (char)c;
  if (f) fclose(f);
  size_t p = s.find("\"" + kernel + "\": \"");
  if (p == std::string::npos) return "not found in the translated module";
  p += kernel.size() + 5;
  return s.substr(p, s.find("\"", p) - p);
}

const KernelDesc *kernel_of(Function *f) {
  if (f->tried) return f->kernel;
  f->tried = true;
  const ModuleDesc *m = module_for(f->fat, f->name, f->reason);
  if (m) {
    for (uint32_t i = 0; i < m->kernel_count; i++)
      if (f->name == m->kernels[i].name) f->kernel = &m->kernels[i];
    if (!f->kernel) f->reason = why_missing(m, f->name);
  }
  return f->kernel;
}

struct FatBinaryWrapper {
  int magic, version;
  const void *data;
  void *extra;
};

extern "C" void **__cudaRegisterFatBinary(void *w) {
  FatBinary *f = new FatBinary();
  f->data = ((FatBinaryWrapper *)w)->data;
  return (void **)f;
}

extern "C" void __cudaRegisterFatBinaryEnd(void **) {}

extern "C" void __cudaUnregisterFatBinary(void **) {}

extern "C" char __cudaInitModule(void **) { return 0; }

extern "C" void __cudaRegisterFunction(void **h, const char *host, char *, const char *name, int, uint3 *,
                                       uint3 *, dim3 *, dim3 *, int *) {
  std::lock_guard<std::mutex> guard(g_mu);
  auto *f = new Function();
  f->fat = (FatBinary *)h;
  f->name = name;
  host_functions()[host] = f;
}

extern "C" void __cudaRegisterVar(void **h, char *host, char *, const char *name, int, size_t size, int,
                                  int) {
  std::lock_guard<std::mutex> guard(g_mu);
  ((FatBinary *)h)->has_variables = true;
  host_variables()[host] = HostVariable{(FatBinary *)h, name, size};
}

extern "C" void __cudaRegisterManagedVar(void **, void **, char *, const char *name, int, size_t, int, int) {
  fprintf(stderr, "[ptxemu] managed variable %s is not supported\n", name);
}

Function *find_function(const void *f) {
  std::lock_guard<std::mutex> guard(g_mu);
  auto it = host_functions().find(f);
  return it == host_functions().end() ? nullptr : it->second;
}

extern "C" int ptxemu_module_load(const char *image, void **mod) { // PTX text or a fat binary
  static const uint32_t FATBIN = 0xBA55ED50;
  auto *f = new FatBinary();
  f->has_variables = true; // translate the module as a modules
  if (!memcmp(image, &FATBIN, 4)) f->data = image, parse_fat(f);
  else if (memcmp(image, "\177ELF", 4) && strstr(image, ".version")) f->ptx.push_back(image);
  f->parsed = true;
  if (f->ptx.empty()) {
    fprintf(stderr, "[ptxemu] module image holds no PTX (Triton needs the stand-in's ptxas: run the program "
                    "with ptxemu.device)\n");
    delete f;
    return cudaErrorNoKernelImageForDevice;
  }
  *mod = f;
  return cudaSuccess;
}

extern "C" int ptxemu_module_function(void *mod, const char *name, void **fn) {
  FatBinary *fat = (FatBinary *)mod;
  auto it = fat->functions.find(name);
  Function *f = it != fat->functions.end() ? (Function *)it->second : new Function{fat, name};
  fat->functions[name] = f;
  std::lock_guard<std::mutex> guard(g_launch);
  *fn = f;
  if (kernel_of(f)) return cudaSuccess;
  fprintf(stderr, "[ptxemu] cannot load kernel %s: %s\n", name, f->reason.c_str());
  return cudaErrorNoKernelImageForDevice;
}

extern "C" int ptxemu_module_global(void *mod, const char *name, void **p, size_t *n) {
  std::string err;
  const ModuleDesc *m = module_for((FatBinary *)mod, "", err);
  for (uint32_t i = 0; m && i < m->variable_count; i++)
    if (!strcmp(name, m->variables[i].name)) {
      if (p) *p = m->variables[i].pointer;
      if (n) *n = m->variables[i].size;
      return cudaSuccess;
    }
  return cudaErrorSymbolNotFound;
}

static cudaError_t symbol_address(void **p, const void *s, size_t *size = nullptr) {
  auto it = host_variables().find(s);
  if (it == host_variables().end()) return set_error(cudaErrorInvalidSymbol);
  std::string err;
  const ModuleDesc *m = module_for(it->second.fat, "", err);
  if (!m) {
    fprintf(stderr, "[ptxemu] variable %s: %s\n", it->second.name.c_str(), err.c_str());
    return set_error(cudaErrorInvalidSymbol);
  }
  for (uint32_t i = 0; i < m->variable_count; i++)
    if (it->second.name == m->variables[i].name) {
      *p = m->variables[i].pointer;
      if (size) *size = m->variables[i].size;
      return cudaSuccess;
    }
  return set_error(cudaErrorInvalidSymbol);
}

API cudaGetSymbolAddress(void **p, const void *s) { return symbol_address(p, s); }

API cudaGetSymbolSize(size_t *n, const void *s) {
  void *p;
  return symbol_address(&p, s, n);
}

API cudaMemcpyToSymbol(const void *s, const void *src, size_t n, size_t off, cudaMemcpyKind) {
  if (cudaError_t e = forbid_during_capture("cudaMemcpyToSymbol")) return e;
  void *p;
  cudaError_t e = symbol_address(&p, s);
  if (e) return e;
  memcpy((char *)p + off, src, n);
  return cudaSuccess;
}

API cudaMemcpyToSymbolAsync(const void *s, const void *src, size_t n, size_t off, cudaMemcpyKind,
                            cudaStream_t st) {
  void *p;
  cudaError_t e = symbol_address(&p, s);
  if (e) return e;
  return submit(st, "cudaMemcpyToSymbolAsync", [=] { return memcpy((char *)p + off, src, n), cudaSuccess; });
}

API cudaMemcpyFromSymbol(void *d, const void *s, size_t n, size_t off, cudaMemcpyKind) {
  void *p;
  cudaError_t e = symbol_address(&p, s);
  if (e) return e;
  memcpy(d, (char *)p + off, n);
  return cudaSuccess;
}
