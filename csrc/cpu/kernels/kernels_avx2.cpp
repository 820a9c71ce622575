#define FUSEDRES_ISA avx2
#include "cpu/kernels/table.h"
