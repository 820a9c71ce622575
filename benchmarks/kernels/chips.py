"""Rates of the two GPUs that the time model knows, and where each number comes from."""

from __future__ import annotations

from typing import NamedTuple

#: Every processor of both issues an instruction a cycle in each of its four parts, and its shared memory
#: passes 32 banks of 4 bytes a cycle (CUDA C++ Programming Guide, "Compute Capabilities").
ISSUED_A_CYCLE = 4
WAVEFRONTS_A_CYCLE = 1


class Chip(NamedTuple):
    """Rates at the boost clock.

    ``macs_a_cycle`` is a processor's, of bf16 with fp32 sums by mma.sync; ``l2`` and ``dram`` are bytes a
    second.
    """

    name: str
    capability: int
    processors: int
    clock: float
    macs_a_cycle: float
    l2: float
    dram: float


CHIPS = (
    # NVIDIA A100 Tensor Core GPU Architecture (white paper): 108 processors, 1410 MHz, 1024 multiply-adds a
    # cycle (312 TFLOP/s). DRAM: 80 GB SXM data sheet, 2,039 GB/s. L2: read by kernels at about 4.5 TB/s, of
    # 5120 bytes a cycle (7.2 TB/s) in the white paper.
    Chip("A100", 80, 108, 1.41e9, 1024, 4.5e12, 2.0e12),
    # NVIDIA H100 Tensor Core GPU Architecture (white paper), SXM: 132 processors, 989 TFLOP/s, which is 2048
    # multiply-adds a cycle at 1830 MHz. mma.sync reaches about 62% of it, only wgmma all (Luo et al.,
    # arXiv:2402.13499). DRAM: data sheet, 3.35 TB/s. L2: about 6 TB/s by kernels.
    Chip("H100", 90, 132, 1.83e9, 0.62 * 2048, 6.0e12, 3.35e12),
)


def chip_of(name: str) -> Chip:
    """The chip called ``name``."""
    return next(chip for chip in CHIPS if chip.name == name)
