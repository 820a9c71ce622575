"""atom and red."""

from __future__ import annotations

from ...ptx.model import Instr, Operand, Sink, Vector, container_bits
from ..emitter import BlockEmitter
from .common import Lowering, memory_space, vector_length

# ``enum AtomicOp`` and ``enum AtomicType`` of runtime/abi.hpp
OPERATIONS = {
    name: code
    for code, name in enumerate(["add", "min", "max", "and", "or", "xor", "inc", "dec", "exch", "cas"])
}
TYPES = {
    "u32": 0, "b32": 0, "s32": 1, "u64": 2, "b64": 2, "s64": 3, "f32": 4, "f64": 5, "f16": 6, "bf16": 7,
    "f16x2": 8, "bf16x2": 9, "b16": 10, "u16": 10,
}  # fmt: skip


def _atom(e: BlockEmitter, instr: Instr) -> None:
    destination, memory, value = instr.args[:3]
    swapped_in = instr.args[3] if len(instr.args) > 3 and instr.has("cas") else None
    _atomic(e, instr, destination, memory, value, swapped_in)


def _red(e: BlockEmitter, instr: Instr) -> None:
    _atomic(e, instr, None, instr.args[0], instr.args[1], None)


def _atomic(
    e: BlockEmitter,
    instr: Instr,
    destination: Operand | None,
    memory: Operand,
    value: Operand,
    swapped_in: Operand | None,
) -> None:
    if instr.has("async"):
        raise e.unsupported()
    operation = next(part for part in instr.parts[1:] if part in OPERATIONS)
    type_code = TYPES[instr.type]
    if instr.type == "s32" and operation not in ("min", "max"):
        type_code = TYPES["u32"]
    count, width, space = vector_length(instr), container_bits(instr.type), memory_space(instr)
    address = e.address(memory, space)
    values = e.load_all(list(value.items) if isinstance(value, Vector) and count > 1 else [value], width)
    swapped = f"&{e.load(swapped_in, width)}" if swapped_in is not None else "nullptr"
    wanted = destination is not None and not isinstance(destination, Sink)
    old = e.results(count, width) if wanted else "nullptr"
    shared = int(space == "shared")
    e.call("pe_atom", shared, address, type_code, OPERATIONS[operation], count, values, swapped, old)
    if destination is not None and wanted:
        targets = destination.items if isinstance(destination, Vector) and count > 1 else (destination,)
        e.assign_each(targets, width, old)


LOWERINGS: dict[str, Lowering] = {"atom": _atom, "red": _red}
