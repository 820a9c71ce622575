#define FUSEDRES_ISA avx512
#include "cpu/kernels/table.h"
