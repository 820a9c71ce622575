// FatBinary binaries: find and decompress the PTX in them.
#include "standin.hpp"

#include <unistd.h>

static bool lz4(const uint8_t *s, size_t n, std::string &out, size_t want) {
  const uint8_t *e = s + n;
  while (s < e && out.size() < want) {
    uint32_t tok = *s++;
    size_t lit = tok >> 4;
    if (lit == 15) {
      uint8_t b;
      do {
        if (s >= e) return false;
        b = *s++;
        lit += b;
      } while (b == 255);
    }
    if (s + lit > e) return false;
    out.append((const char *)s, lit);
    s += lit;
    if (s >= e || out.size() >= want) break;
    size_t off = s[0] | s[1] << 8;
    s += 2;
    size_t ml = tok & 15;
    if (ml == 15) {
      uint8_t b;
      do {
        if (s >= e) return false;
        b = *s++;
        ml += b;
      } while (b == 255);
    }
    ml += 4;
    if (!off || off > out.size()) return false;
    for (size_t i = 0; i < ml; i++) out.push_back(out[out.size() - off]);
  }
  return true;
}

// through the zstd command line tool: most systems have it, few its headers
static bool zstd(const uint8_t *data, size_t size, std::string &out) {
  std::string name;
  int file = scratch_file(name);
  if (file < 0) return false;
  bool written = write(file, data, size) == (ssize_t)size;
  close(file);
  bool ok = written && run_program({"zstd", "-dcq", name}, {}, false, out);
  unlink(name.c_str());
  return ok;
}

void parse_fat(FatBinary *f) {
  if (f->parsed) return;
  f->parsed = true;
  const uint8_t *p = (const uint8_t *)f->data;
  uint32_t magic;
  memcpy(&magic, p, 4);
  if (magic != 0xBA55ED50) return;
  uint16_t hs;
  uint64_t total;
  memcpy(&hs, p + 6, 2);
  memcpy(&total, p + 8, 8);
  const uint8_t *q = p + hs, *end = q + total;
  while (q < end) {
    uint16_t kind;
    uint32_t eh, psz;
    uint64_t padded, flags, usz;
    memcpy(&kind, q, 2);
    memcpy(&eh, q + 4, 4);
    memcpy(&padded, q + 8, 8);
    memcpy(&psz, q + 16, 4);
    memcpy(&flags, q + 40, 8);
    memcpy(&usz, q + 56, 8);
    if (!eh) break;
    if (kind == 1) {
      std::string s;
      const uint8_t *d = q + eh;
      bool ok = true;
      if (flags & 0x8000) ok = zstd(d, psz, s);
      else if (flags & 0x2000) ok = lz4(d, psz, s, usz);
      else s.assign((const char *)d, padded);
      s = std::string(s.c_str());
      if (ok && s.find(".version") != std::string::npos) f->ptx.push_back(s);
      else {
        f->undecodable = true;
        fprintf(stderr,
                "[ptxemu] cannot decompress a PTX entry (flags 0x%llx): build with "
                "-Xfatbin=-compress-mode=none\n",
                (unsigned long long)flags);
      }
    } else f->has_machine_code = true;
    q += eh + padded;
  }
}
