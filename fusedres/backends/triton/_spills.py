"""Configurations that ptxas gives too few registers, as data: they are left out of what a problem may run.

ptxas aims at one more resident program and parks a few addresses in local memory for it. With fewer stages
in flight there are fewer addresses, and the same tile needs none of it.
"""

from __future__ import annotations

from typing import NamedTuple


class Configuration(NamedTuple):
    """A tile that forms an operand on load, and how it is run, on a compute capability.

    ``itemsize`` is the dtype's in bytes: 2, or 4 with TF32's products. ``sources`` are the tensors that the
    operand is formed of: two with BatchNorm's backward.
    """

    kernel: str
    capability: int
    itemsize: int
    sources: int
    BM: int
    BN: int
    num_warps: int
    num_stages: int


#: Bytes a thread, as compiled for tests/compile's layers; of TF32 the heuristic's tiles alone were compiled.
SPILLED = {
    Configuration("conv_kernel", 8, 2, 1, 128, 64, 8, 3): 16,
    Configuration("conv_kernel", 8, 2, 1, 32, 32, 2, 4): 8,
    Configuration("conv_kernel", 10, 2, 1, 64, 64, 4, 4): 32,
    Configuration("wgrad_kernel", 10, 2, 2, 128, 128, 8, 3): 32,
    Configuration("wgrad_kernel", 10, 2, 2, 64, 64, 4, 3): 32,
    Configuration("conv_kernel", 8, 4, 2, 128, 64, 8, 3): 8,
    Configuration("conv_kernel", 8, 4, 2, 128, 64, 8, 2): 8,
    Configuration("wgrad_kernel", 10, 4, 2, 64, 64, 4, 3): 8,
    Configuration("conv_kernel", 12, 4, 2, 128, 128, 8, 1): 16,
}
