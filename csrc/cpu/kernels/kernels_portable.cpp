#define FUSEDRES_ISA portable
#include "cpu/kernels/table.h"
