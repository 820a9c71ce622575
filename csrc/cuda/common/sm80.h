// PTX that compute capability 7.5 lacks. A build for 7.5 compiles every kernel all the same, and the host
// launches none that has such PTX: it would trap.
#pragma once

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#define FUSEDRES_SM80(...) __trap()
#else
#define FUSEDRES_SM80(...) __VA_ARGS__
#endif
