// Error reports: kernel, PTX line, source line, CTA, thread.
#include "internal.hpp"

#include <stdarg.h>
#include <stdio.h>

static std::string where(const KernelDesc *k, uint32_t line) {
  uint32_t lo = 0, hi = k->location_count;
  while (lo < hi) {
    uint32_t mid = (lo + hi) / 2;
    if (k->locations[mid].ptx <= line) lo = mid + 1;
    else hi = mid;
  }
  if (!lo || !k->locations[lo - 1].line) return "";
  const char *f = k->files[k->locations[lo - 1].file];
  const char *s = strrchr(f, '/');
  return std::string(" (") + (s ? s + 1 : f) + ":" + std::to_string(k->locations[lo - 1].line) + ")";
}

void pe_error(Warp *warp, int lane, uint32_t line, const char *fmt, ...) {
  Launch *launch = launch_of(warp);
  char msg[600], buf[1000];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(msg, sizeof msg, fmt, ap);
  va_end(ap);
  uint32_t t[3] = {0, 0, 0};
  if (lane >= 0)
    for (int i = 0; i < 3; i++) t[i] = lane32(warp->tid[i], lane);
  snprintf(buf, sizeof buf, "kernel %s, PTX line %u%s, cta (%u,%u,%u) thread (%u,%u,%u): %s",
           launch->kernel->name, line, where(launch->kernel, line).c_str(), warp->ctaid[0], warp->ctaid[1],
           warp->ctaid[2], t[0], t[1], t[2], msg);
  uint32_t n = ++launch->error_count;
  char key[64];
  snprintf(key, sizeof key, "%u:%.20s", line, fmt);
  std::lock_guard<std::mutex> g(launch->error_mutex);
  if (launch->seen[key]++ < 2 && launch->errors.size() < 32) launch->errors.push_back(buf);
  if (n >= launch->options.max_errors) launch->abort = true;
}

extern "C" void pe_trap(Warp *warp, P mask, const char *what, uint32_t line) {
  if (mask) {
    pe_error(warp, first(mask), line, "%s executed", what);
    launch_of(warp)->abort = true;
  }
}

extern "C" void pe_assertfail(Warp *warp, P mask, const V64 *msg, const V64 *file, const V32 *ln,
                              const V64 *func, uint32_t line) {
  if (!mask) return;
  int lane = first(mask);
  pe_error(warp, lane, line, "device assertion failed: %s (%s:%u)", (const char *)lane64(*msg, lane),
           (const char *)lane64(*file, lane), lane32(*ln, lane));
  launch_of(warp)->abort = true;
}
