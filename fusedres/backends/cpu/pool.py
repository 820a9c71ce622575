"""How much the pool of large outputs holds (``csrc/cpu/pool.h``); ``FUSEDRES_CPU_POOL`` bounds it."""

from __future__ import annotations

from typing import NamedTuple

import torch

_LIBRARY = torch.library.Library("fusedres_cpu", "FRAGMENT")  # type: ignore[no-untyped-call]
_LIBRARY.define("pool_usage() -> (int taken, int reached, int bound)")  # type: ignore[no-untyped-call]


class Usage(NamedTuple):
    """Bytes: in tensors that are alive, the most physical memory kept so far, and the bound on that."""

    taken: int
    reached: int
    bound: int


def usage() -> Usage:
    """What the process's pool holds now."""
    return Usage(*torch.ops.fusedres_cpu.pool_usage.default())
