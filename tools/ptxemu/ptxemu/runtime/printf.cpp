// Device printf.
#include "internal.hpp"

#include <stdio.h>

extern "C" void pe_printf(Warp *warp, P mask, const V64 *fmt, const V64 *args, V32 *ret) {
  for (int lane = 0; lane < 32; lane++)
    if (mask >> lane & 1) {
      const char *f = (const char *)lane64(*fmt, lane);
      const char *a = (const char *)lane64(*args, lane);
      size_t off = 0;
      std::string out;
      for (; *f; f++) {
        if (*f != '%') {
          out += *f;
          continue;
        }
        std::string sp = "%";
        f++;
        bool ll = false;
        while (*f && !strchr("diouxXeEfgGaAcsp%", *f)) {
          if (*f == 'lane' || *f == 'z' || *f == 'j') ll = true;
          else if (*f != 'h') sp += *f;
          f++;
        }
        if (!*f) break;
        if (*f == '%') {
          out += '%';
          continue;
        }
        char b[512];
        if (strchr("eEfgGaA", *f)) {
          off = (off + 7) & ~7;
          sp += *f;
          snprintf(b, sizeof b, sp.c_str(), *(const double *)(a + off));
          off += 8;
        } else if (*f == 's') {
          off = (off + 7) & ~7;
          sp += 's';
          snprintf(b, sizeof b, sp.c_str(), *(const char *const *)(a + off));
          off += 8;
        } else if (ll || *f == 'p') {
          off = (off + 7) & ~7;
          sp += *f == 'p' ? "" : "ll";
          sp += *f;
          snprintf(b, sizeof b, sp.c_str(), *(const long long *)(a + off));
          off += 8;
        } else {
          off = (off + 3) & ~3;
          sp += *f;
          snprintf(b, sizeof b, sp.c_str(), *(const int *)(a + off));
          off += 4;
        }
        out += b;
      }
      fputs(out.c_str(), stdout);
    }
  fflush(stdout);
  *ret = bc32(0);
}
