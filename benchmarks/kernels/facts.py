"""What the compiler says of the kernel that a case launches."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import fusedres
from benchmarks.kernels.compiled import (
    instructions_a_product,
    machine_code,
    ptx_code,
    resource_usage,
    with_targets,
)


class Facts(NamedTuple):
    """Registers a thread; bytes of shared memory a block and of local memory; SASS instructions an HMMA."""

    registers: int
    shared: int
    spilled: int
    instructions: float | None


class Library:
    """The kernels of the built extension, read once each."""

    def __init__(self) -> None:
        found = list(Path(fusedres.__file__).parent.glob("_C_cuda.*so"))
        if not found:
            raise RuntimeError(
                "the CUDA extension is not built; FUSEDRES_CUDA_ARCHS=8.0+PTX pip install -e ."
            )
        self.path = found[0]
        self.usage = resource_usage(self.path)
        self._ptx = ptx_code(self.path)
        self._loops: dict[str, tuple[float | None, float | None]] = {}

    def loops(self, kernel: str) -> tuple[float | None, float | None]:
        """Instructions a matrix instruction in the main loop: of the machine's, and of PTX."""
        if kernel not in self._loops:
            machine = instructions_a_product(machine_code(self.path, kernel))
            ptx = instructions_a_product(with_targets(self._ptx.get(kernel, [])), "mma.sync")
            self._loops[kernel] = machine, ptx
        return self._loops[kernel]

    def facts(self, kernel: str, shared: int) -> Facts:
        used = self.usage[kernel]
        return Facts(used.registers, shared, used.stack + used.local, self.loops(kernel)[0])

    def issued(self, kernel: str, counters: Mapping[str, Any]) -> float:
        """Issue slots of a launch: PTX instructions as executed, the main loop's as the machine has them.

        Outside of it nvcc makes about as many machine instructions of PTX.
        """
        executed = float(counters["warp_inst_total"])
        if not counters["mma"] or kernel not in self.usage:
            return executed
        machine, ptx = self.loops(kernel)
        if machine is None or ptx is None:
            return executed
        return executed - counters["mma"] * (ptx - machine)
