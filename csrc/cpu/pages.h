// Advice to the kernel about large buffers.
#pragma once

#include <cstdint>

namespace fusedres {

// A size of pages that x86-64 and aarch64 share.
constexpr int64_t kLargePage = 2 << 20;

// Ask for 2 MB pages where `bytes` fill some: one fault instead of 512, and fewer TLB misses. Only advice:
// nothing depends on it, and it changes neither malloc nor the memory's contents.
void advise_large_pages(void* data, int64_t bytes);

}  // namespace fusedres
