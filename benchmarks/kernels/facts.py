"""What the compiler says of the kernel that a case launches: nvcc's library, or what Triton compiled."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import fusedres
from benchmarks.kernels.compiled import (
    assemble,
    carried_ptx,
    instructions_a_product,
    machine_code,
    ptx_code,
    resource_usage,
    with_targets,
)
from benchmarks.kernels.device import A100

#: Instructions a matrix instruction in the main loop: of the machine's, and of PTX.
Loops = tuple[float | None, float | None]


class Facts(NamedTuple):
    """Registers a thread; bytes of shared memory a block and of local memory; SASS instructions an HMMA."""

    registers: int
    shared: int
    spilled: int
    instructions: float | None


class Library:
    """The kernels of the built extension for an A100, read once each."""

    def __init__(self) -> None:
        found = list(Path(fusedres.__file__).parent.glob("_C_cuda.*so"))
        if not found:
            raise RuntimeError(
                "the CUDA extension is not built; FUSEDRES_CUDA_ARCHS=8.0+PTX pip install -e ."
            )
        self.path = found[0]
        self.usage = resource_usage(self.path, str(A100))
        self._ptx = ptx_code(carried_ptx(self.path))
        self._loops: dict[str, Loops] = {}

    def loops(self, kernel: str) -> Loops:
        """Those of the kernel's main loop."""
        if kernel not in self._loops:
            self._loops[kernel] = loops(self.path, kernel, self._ptx.get(kernel, []), str(A100))
        return self._loops[kernel]

    def facts(self, kernel: str, shared: int) -> Facts:
        used = self.usage[kernel]
        return Facts(used.registers, shared, used.stack + used.local, self.loops(kernel)[0])

    def issued(self, kernel: str, counters: Mapping[str, Any]) -> float:
        """Issue slots of a launch."""
        known = counters["mma"] and kernel in self.usage
        return issue_slots(counters, self.loops(kernel) if known else (None, None))


class Note(NamedTuple):
    """What Triton tells of a launch: its kernel, PTX, bytes of shared memory, rows, columns and depth of a
    tile; a kernel that multiplies nothing has no tile."""

    kernel: str
    ptx: str
    shared: int
    tile: tuple[int, int, int] | None


class Assembled:
    """A kernel of Triton's: the stand-in device keeps PTX alone, so it is assembled for an A100 here."""

    def __init__(self, note: Note, capability: int) -> None:
        self.note = note
        with tempfile.TemporaryDirectory(prefix="fusedres-kernels-") as folder:
            cubin = Path(folder) / "kernel.cubin"
            assemble(note.ptx, capability, cubin)
            self.usage = resource_usage(cubin)[note.kernel]
            self.loops = loops(cubin, note.kernel, ptx_code(note.ptx)[note.kernel])

    @property
    def facts(self) -> Facts:
        used = self.usage
        return Facts(used.registers, self.note.shared, used.stack + used.local, self.loops[0])

    def issued(self, counters: Mapping[str, Any]) -> float:
        """Issue slots of a launch."""
        return issue_slots(counters, self.loops)


def loops(file: Path, kernel: str, ptx: list[tuple[int, str]], architecture: str | None = None) -> Loops:
    """Of a kernel's machine code in a file, and of its PTX."""
    machine = instructions_a_product(machine_code(file, kernel, architecture))
    return machine, instructions_a_product(with_targets(ptx), "mma.sync")


def issue_slots(counters: Mapping[str, Any], found: Loops) -> float:
    """PTX instructions as executed, the main loop's as the machine has them.

    Outside of it compilers make about as many machine instructions of PTX.
    """
    executed = float(counters["warp_inst_total"])
    machine, ptx = found
    if not counters["mma"] or machine is None or ptx is None:
        return executed
    return executed - counters["mma"] * (ptx - machine)
