"""Registers: what an instruction reads and writes, liveness, and slots in the register file between blocks.

Within a block a register is a C++ local; only registers that live across blocks have a slot in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..ptx.model import Instr, Operand, Statement, container_bits, operand_names
from ..ptx.model import Memory as MemoryOperand
from .cfg import Block
from .layout import align_up

CARRY = "$cc"  # the condition code register of add.cc and the like, one predicate
CARRY_READERS = ("addc", "subc", "madc")
SLOT_BYTES = {1: 4, 16: 64, 32: 128, 64: 256}  # of 32 lanes, by register width in bits

NO_DESTINATION = {
    "bra", "brx", "call", "exit", "ret", "trap", "brkpt", "nanosleep", "membar", "fence", "setmaxnreg",
    "griddepcontrol", "wgmma", "st", "red", "stmatrix", "pmevent", "prefetch", "prefetchu", "discard",
    "applypriority", "barrier", "bar", "cp", "__clusterwait", "__assertfail",
}  # fmt: skip


class Registers:
    """The registers of a kernel; `allocate` fills `slots`, the offsets of those that live across blocks."""

    def __init__(self, types: Mapping[str, str]) -> None:
        self.types = {**types, CARRY: "pred"}
        self.index = {name: number for number, name in enumerate(self.types)}
        self.slots: dict[str, int] = {}
        self.file_bytes = 64
        self._live_in: dict[Block, int] = {}  # bit sets over `index`
        self._live_out: dict[Block, int] = {}
        self._written: dict[Block, int] = {}

    def __contains__(self, name: str) -> bool:
        return name in self.types

    def width(self, name: str) -> int:
        """Bits of a lane: 1 for predicates, else 16, 32 or 64."""
        return 1 if self.types[name] == "pred" else container_bits(self.types[name])

    def variable(self, name: str) -> str:
        """The C++ variable that stands for a register within a block."""
        return f"v{self.index[name]}"

    def in_operands(self, operands: Iterable[Operand]) -> list[str]:
        return [name for name in operand_names(operands) if name in self.types]

    def written_and_read(self, instr: Instr) -> tuple[list[str], list[str]]:
        """The registers an instruction writes, and those it reads."""
        args = instr.args
        written: list[str] = []
        if instr.base == "wmma" and instr.parts[1] == "store":
            read = self.in_operands(args)
        elif instr.base == "wgmma" and instr.parts[1] == "mma_async":
            written, read = self.in_operands(args[:1]), self.in_operands(args)
        elif instr.base == "__vprintf":
            read = []
        else:
            has_result = (
                bool(args) and instr.base not in NO_DESTINATION and not isinstance(args[0], MemoryOperand)
            )
            results = 1 if has_result else 0
            written, read = self.in_operands(args[:results]), self.in_operands(args[results:])
        if instr.has("cc"):
            written.append(CARRY)
        if instr.base in CARRY_READERS:
            read.append(CARRY)
        if instr.guard:
            read += [instr.guard.register, *written]  # a guarded write keeps the value of the other lanes
        return written, read

    # ---- liveness

    def allocate(self, blocks: Sequence[Block]) -> None:
        """Find which registers live across blocks and give each a slot, widest first."""
        self._solve_liveness(blocks)
        live = 0
        for block in blocks:
            live |= self._live_in[block]
        names = [name for name, number in self.index.items() if live >> number & 1]
        offset = 0
        for name in sorted(names, key=self.width, reverse=True):
            self.slots[name] = offset
            offset += SLOT_BYTES[self.width(name)]
        self.file_bytes = align_up(offset, 64) or 64

    def _solve_liveness(self, blocks: Sequence[Block]) -> None:
        read_first: dict[Block, int] = {}
        for block in blocks:
            used = defined = 0
            for instr in block.instructions():
                written, read = self.written_and_read(instr)
                for name in read:
                    used |= ~defined & 1 << self.index[name]
                for name in written:
                    defined |= 1 << self.index[name]
            read_first[block], self._written[block] = used, defined
            self._live_in[block], self._live_out[block] = used, 0
        changed = True
        while changed:
            changed = False
            for block in reversed(blocks):
                live_out = 0
                for successor in block.successors:
                    live_out |= self._live_in[successor]
                live_in = read_first[block] | (live_out & ~self._written[block])
                if (live_in, live_out) != (self._live_in[block], self._live_out[block]):
                    self._live_in[block], self._live_out[block] = live_in, live_out
                    changed = True

    def is_loaded(self, block: Block, name: str) -> bool:
        """Whether the block needs the value the register had before it."""
        return bool(self._live_in[block] >> self.index[name] & 1)

    def is_stored(self, block: Block, name: str) -> bool:
        """Whether the block writes the register for a later block."""
        return bool((self._written[block] & self._live_out[block]) >> self.index[name] & 1)


def accumulator_ids(code: Iterable[Statement], registers: Registers) -> dict[str, int]:
    """Ids of the registers that may hold a wgmma accumulator in flight: results and their copies by mov."""
    instrs = [statement for statement in code if isinstance(statement, Instr)]
    found = {
        name
        for instr in instrs
        if instr.op.startswith("wgmma.mma_async")
        for name in registers.in_operands(instr.args[:1])
    }
    if not found:
        return {}
    moves = [
        (registers.in_operands(instr.args[:1]), registers.in_operands(instr.args[1:2]))
        for instr in instrs
        if instr.base == "mov"
    ]
    size = 0
    while size != len(found):
        size = len(found)
        for targets, sources in moves:
            if not found.isdisjoint(sources):
                found.update(targets)
    return {name: number for number, name in enumerate(sorted(found))}
