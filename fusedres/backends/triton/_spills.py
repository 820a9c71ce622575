"""Configurations that ptxas gives too few registers, as data, with what runs in place of each.

ptxas aims at one more resident program and parks a few addresses in local memory for it. With fewer stages
in flight there are fewer addresses, and with half the warps more registers a thread: it then aims elsewhere.
"""

from __future__ import annotations

from typing import NamedTuple


class Configuration(NamedTuple):
    """A tile and how it is run, on a compute capability.

    ``kernel`` says "flat" where taps × few channels are reduced as one index, "runs" where the taps of a row
    are. ``numerics`` is the dtype's name, or ``tf32``: registers follow conversions as much as sizes.
    ``sources`` are the tensors that an operand is formed of on load: none where it is taken as it lies, two
    with BatchNorm's backward.
    """

    kernel: str
    capability: int
    numerics: str
    sources: int
    BM: int
    BN: int
    num_warps: int
    num_stages: int


#: Those that spill, by 8 to 128 bytes a thread, and the (warps, stages) that do not; None where a smaller
#: tile must serve. As compiled for the layers of tests/compile.
INSTEAD: dict[Configuration, tuple[int, int] | None] = {
    Configuration("conv_kernel", 8, "bfloat16", 1, 128, 64, 8, 3): (8, 2),
    Configuration("conv_kernel", 8, "bfloat16", 1, 32, 32, 2, 4): (2, 3),
    Configuration("conv_kernel, flat", 8, "bfloat16", 1, 128, 64, 8, 3): (8, 2),
    Configuration("conv_kernel", 10, "bfloat16", 0, 128, 32, 4, 4): (4, 3),
    Configuration("conv_kernel", 10, "bfloat16", 1, 64, 64, 4, 4): (4, 3),
    Configuration("conv_kernel, flat", 10, "bfloat16", 0, 128, 32, 4, 4): (8, 4),
    Configuration("conv_kernel, flat", 10, "bfloat16", 1, 128, 32, 4, 4): (8, 4),
    Configuration("wgrad_kernel", 10, "bfloat16", 2, 128, 128, 8, 3): (8, 2),
    Configuration("wgrad_kernel", 10, "bfloat16", 2, 64, 64, 4, 3): (4, 2),
    Configuration("wgrad_kernel", 10, "bfloat16", 2, 16, 16, 2, 3): (1, 3),
    Configuration("conv_kernel", 12, "bfloat16", 2, 128, 64, 8, 1): None,
    Configuration("conv_kernel", 12, "bfloat16", 2, 128, 16, 4, 4): (8, 4),
    Configuration("wgrad_kernel", 12, "bfloat16", 2, 16, 16, 2, 3): (1, 3),
    Configuration("conv_kernel", 8, "float16", 1, 128, 64, 8, 3): (8, 2),
    Configuration("conv_kernel", 8, "float16", 1, 32, 32, 2, 4): (2, 3),
    Configuration("conv_kernel, flat", 8, "float16", 1, 128, 64, 8, 3): (8, 2),
    Configuration("conv_kernel", 9, "float16", 1, 32, 32, 2, 4): (4, 4),
    Configuration("wgrad_kernel", 9, "float16", 2, 16, 16, 2, 3): (1, 3),
    Configuration("conv_kernel", 10, "float16", 1, 128, 128, 8, 3): (4, 3),
    Configuration("conv_kernel", 10, "float16", 1, 128, 64, 8, 3): (4, 3),
    Configuration("conv_kernel", 10, "float16", 1, 128, 32, 4, 4): (8, 4),
    Configuration("conv_kernel", 10, "float16", 1, 64, 128, 8, 3): (4, 3),
    Configuration("conv_kernel", 10, "float16", 1, 64, 64, 4, 4): (8, 4),
    Configuration("conv_kernel", 10, "float16", 1, 64, 32, 4, 4): (4, 3),
    Configuration("conv_kernel", 10, "float16", 2, 128, 64, 8, 3): (4, 3),
    Configuration("conv_kernel", 10, "float16", 2, 128, 16, 4, 4): (4, 3),
    Configuration("conv_kernel, flat", 10, "float16", 0, 128, 32, 4, 4): (8, 4),
    Configuration("conv_kernel, flat", 10, "float16", 1, 128, 32, 4, 4): (8, 4),
    Configuration("wgrad_kernel", 10, "float16", 2, 64, 128, 8, 3): (8, 2),
    Configuration("wgrad_kernel", 10, "float16", 2, 64, 64, 4, 3): (8, 2),
    Configuration("wgrad_kernel", 10, "float16", 2, 16, 16, 2, 3): (1, 3),
    Configuration("conv_kernel", 12, "float16", 2, 128, 64, 8, 1): None,
    Configuration("wgrad_kernel", 12, "float16", 2, 16, 16, 2, 3): (1, 3),
    Configuration("conv_kernel", 8, "tf32", 0, 128, 64, 4, 3): (4, 2),
    Configuration("conv_kernel", 8, "tf32", 1, 128, 32, 4, 4): (8, 4),
    Configuration("conv_kernel", 8, "tf32", 2, 128, 64, 8, 3): None,
    Configuration("conv_kernel", 8, "tf32", 2, 128, 32, 4, 3): (8, 2),
    Configuration("conv_kernel", 10, "tf32", 2, 128, 128, 8, 3): None,
    Configuration("conv_kernel, runs", 10, "tf32", 1, 128, 32, 4, 4): (8, 4),
    Configuration("conv_kernel, runs", 10, "tf32", 1, 128, 16, 4, 4): (8, 4),
    Configuration("wgrad_kernel", 10, "tf32", 2, 64, 64, 4, 3): (4, 2),
    Configuration("conv_kernel", 12, "tf32", 1, 128, 64, 8, 3): (8, 2),
    Configuration("conv_kernel", 12, "tf32", 1, 128, 32, 4, 3): (8, 2),
    Configuration("conv_kernel", 12, "tf32", 2, 128, 128, 8, 1): None,
    Configuration("conv_kernel, runs", 12, "tf32", 1, 128, 32, 4, 3): (8, 3),
    Configuration("conv_kernel, runs", 12, "tf32", 1, 128, 16, 4, 4): (8, 4),
    Configuration("conv_kernel, runs", 12, "tf32", 1, 64, 64, 4, 4): (8, 4),
    Configuration("conv_kernel", 8, "float32", 0, 128, 32, 4, 4): (8, 2),
    Configuration("conv_kernel", 8, "float32", 0, 64, 32, 4, 4): (8, 4),
    Configuration("conv_kernel", 8, "float32", 1, 128, 32, 8, 4): (8, 2),
    Configuration("conv_kernel", 8, "float32", 1, 64, 64, 8, 4): (8, 3),
    Configuration("conv_kernel, flat", 8, "float32", 1, 128, 16, 4, 4): (8, 4),
    Configuration("conv_kernel, runs", 8, "float32", 0, 128, 32, 4, 4): (8, 4),
    Configuration("conv_kernel, runs", 8, "float32", 0, 64, 64, 4, 4): (8, 2),
    Configuration("conv_kernel, runs", 8, "float32", 1, 128, 16, 4, 4): (4, 3),
    Configuration("conv_kernel, runs", 8, "float32", 1, 32, 64, 4, 4): (8, 4),
    Configuration("wgrad_kernel", 8, "float32", 2, 32, 64, 4, 3): (4, 2),
    Configuration("conv_kernel", 9, "float32", 1, 32, 32, 2, 4): (4, 4),
    Configuration("wgrad_kernel", 9, "float32", 2, 64, 64, 8, 3): (4, 3),
    Configuration("conv_kernel", 10, "float32", 0, 128, 16, 4, 4): (8, 3),
    Configuration("conv_kernel", 10, "float32", 0, 64, 32, 4, 4): (8, 4),
    Configuration("conv_kernel", 10, "float32", 1, 64, 32, 4, 4): (8, 4),
    Configuration("conv_kernel", 10, "float32", 1, 32, 64, 4, 4): (8, 4),
    Configuration("conv_kernel", 10, "float32", 1, 32, 32, 2, 4): (4, 4),
    Configuration("conv_kernel, flat", 10, "float32", 0, 128, 16, 4, 4): (4, 3),
    Configuration("conv_kernel, runs", 10, "float32", 0, 128, 16, 4, 4): (4, 3),
    Configuration("conv_kernel, runs", 10, "float32", 1, 32, 16, 2, 4): (2, 3),
    Configuration("conv_kernel", 12, "float32", 0, 32, 32, 2, 4): (4, 4),
    Configuration("conv_kernel", 12, "float32", 1, 64, 32, 4, 4): (8, 4),
    Configuration("conv_kernel", 12, "float32", 1, 32, 64, 4, 4): (8, 4),
    Configuration("conv_kernel", 12, "float32", 1, 32, 32, 2, 4): (4, 4),
    Configuration("conv_kernel", 12, "float32", 2, 64, 64, 8, 3): (4, 3),
    Configuration("conv_kernel", 12, "float32", 2, 32, 64, 4, 4): (8, 4),
    Configuration("conv_kernel, flat", 12, "float32", 0, 128, 16, 4, 4): (4, 3),
    Configuration("conv_kernel, flat", 12, "float32", 1, 32, 16, 2, 4): (2, 3),
    Configuration("conv_kernel, runs", 12, "float32", 0, 128, 16, 4, 4): (4, 3),
    Configuration("conv_kernel, runs", 12, "float32", 1, 32, 16, 2, 4): (2, 3),
    Configuration("wgrad_kernel", 12, "float32", 2, 64, 64, 8, 3): (4, 3),
}
