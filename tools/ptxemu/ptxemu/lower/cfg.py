"""Basic blocks and their control flow graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..ptx.model import Instr, Label, Name, Statement

MAX_BLOCK_INSTRUCTIONS = 220  # g++ needs time and memory more than linearly in the size of a function

# ``enum BlockFlag`` in runtime/abi.hpp
FLAG_CONVERGE = 1  # the scheduler waits for the other lanes of the warp before it runs the block
FLAG_BARRIER = 2  # the block ends in a barrier

CONVERGING = {
    "shfl", "vote", "match", "redux", "elect", "bar", "barrier", "ldmatrix", "stmatrix", "movmatrix", "mma",
    "wmma", "wgmma", "tensormap",
}  # fmt: skip
_ENDS = ("bra", "brx", "exit", "ret", "__clusterwait")


@dataclass(eq=False)
class Block:
    """Straight-line code and a terminator; `fall_through` comes next where the terminator does not jump."""

    index: int = -1
    body: list[Instr] = field(default_factory=list)
    terminator: Instr | None = None
    line: int = 0
    flags: int = 0
    fall_through: Block | None = None
    target: Block | None = None  # of bra
    targets: list[Block] = field(default_factory=list)  # of brx
    successors: list[Block] = field(default_factory=list)

    def instructions(self) -> list[Instr]:
        return [*self.body, self.terminator] if self.terminator else self.body


def is_cta_barrier(instr: Instr) -> bool:
    """bar/barrier of the CTA, as against bar.warp.sync and barrier.cluster."""
    return instr.base in ("bar", "barrier") and instr.parts[1] not in ("warp", "cluster")


def build_blocks(code: Sequence[Statement], branch_targets: Mapping[str, list[str]]) -> list[Block]:
    """Cut `code` at labels, jumps and barriers, and link the blocks; the last one always ends in ``exit``."""
    blocks, labels = _cut(code)
    for block in blocks:
        _link(block, labels, branch_targets)
    return blocks


def _cut(code: Sequence[Statement]) -> tuple[list[Block], dict[str, Block]]:
    current = Block()
    blocks, labels = [current], {}

    def start() -> Block:
        block = Block()
        current.fall_through = block
        blocks.append(block)
        return block

    for statement in code:
        if isinstance(statement, Label):
            if current.body or current.terminator:
                current = start()
            labels[statement.name] = current
            continue
        if current.terminator or len(current.body) >= MAX_BLOCK_INSTRUCTIONS:
            current = start()
        if not current.body:
            current.line = statement.line
        if statement.base in _ENDS or is_cta_barrier(statement):
            current.terminator = statement
            if is_cta_barrier(statement):
                current.flags |= FLAG_CONVERGE | FLAG_BARRIER
            elif statement.base == "__clusterwait":
                current.flags |= FLAG_CONVERGE
        else:
            current.body.append(statement)
            if statement.base in CONVERGING:
                current.flags |= FLAG_CONVERGE
    last = current.terminator
    if last is None or last.guard or last.base not in ("exit", "ret", "bra", "brx"):
        line = current.line
        end = start()
        end.terminator = Instr("exit", [], line, None, "exit")
        end.line = line
    for index, block in enumerate(blocks):
        block.index = index
    return blocks, labels


def _link(block: Block, labels: Mapping[str, Block], branch_targets: Mapping[str, list[str]]) -> None:
    terminator = block.terminator
    following = [block.fall_through] if block.fall_through else []
    if terminator is None:
        block.successors = following
    elif terminator.base == "bra":
        block.target = labels[_label(terminator, 0)]
        block.successors = [block.target, *(following if terminator.guard else [])]
    elif terminator.base == "brx":
        block.targets = [labels[name] for name in branch_targets[_label(terminator, 1)]]
        block.successors = list(block.targets)
    elif terminator.base in ("exit", "ret"):
        block.successors = following if terminator.guard else []
    elif terminator.base == "__clusterwait":
        block.successors = [*following, block]
    else:
        block.successors = following


def _label(instr: Instr, index: int) -> str:
    operand = instr.args[index]
    assert isinstance(operand, Name)
    return operand.name
