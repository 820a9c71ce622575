// Scratch memory of the calling thread.
#pragma once

#include <cstdint>

namespace fusedres::conv {

// What a thread has scratch memory for: a convolution's or a block's run, weights packed for one call, and
// the packed inputs of its own tiles.
enum class Scratch { kRun, kWeights, kInputs };

// At least `bytes`, aligned to 64, valid until this thread's next call for the same use. It grows, is never
// cleared, and goes back with the thread: what a block keeps between its convolutions faults no pages once it
// is warm. Packed inputs are kept from one piece of a convolution to the next: direct.cpp knows them by their
// plan's serial.
char* scratch_memory(int64_t bytes, Scratch use = Scratch::kRun);

}  // namespace fusedres::conv
