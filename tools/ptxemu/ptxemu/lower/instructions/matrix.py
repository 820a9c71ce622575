"""ldmatrix, stmatrix, movmatrix, mma.sync and wmma."""

from __future__ import annotations

import re

from ...ptx.model import TYPE_BYTES, Imm, Instr, Operand, Vector
from ..emitter import BlockEmitter, vector_items
from .common import Lowering, matrix_shape, memory_space

# ``enum MatrixType`` of runtime/abi.hpp
MATRIX_TYPE = {
    "f16": 0, "bf16": 1, "tf32": 2, "f32": 2, "s8": 3, "u8": 4, "f64": 5, "e4m3": 6, "e5m2": 7, "s32": 8,
}  # fmt: skip


def _matrix_count(instr: Instr) -> int:
    return int(next(part[1:] for part in instr.parts if re.match(r"^x[124]$", part)))


def _ldmatrix(e: BlockEmitter, instr: Instr) -> None:
    if not instr.has("m8n8") or instr.type != "b16":
        raise e.unsupported()
    count = _matrix_count(instr)
    address, loaded = e.address(instr.args[1], "shared"), e.results(count, 32)
    e.call("pe_ldmatrix", address, count, int(instr.has("trans")), loaded)
    e.assign_each(vector_items(instr.args[0]), 32, loaded)


def _stmatrix(e: BlockEmitter, instr: Instr) -> None:
    address = e.address(instr.args[0], "shared")
    values = e.load_all(vector_items(instr.args[1]), 32)
    e.call("pe_stmatrix", address, _matrix_count(instr), int(instr.has("trans")), values)


def _movmatrix(e: BlockEmitter, instr: Instr) -> None:
    source, result = e.load(instr.args[1], 32), e.result(32, zero=True)
    e.call("pe_movmatrix", f"&{source}", f"&{result}")
    e.assign(instr.args[0], 32, result)


def _mma(e: BlockEmitter, instr: Instr) -> None:
    if instr.has("sp") or "kind" in instr.op:
        raise e.unsupported()
    m, n, k = matrix_shape(instr)
    d_type, a_type, b_type, c_type = [part for part in instr.parts if part in MATRIX_TYPE]
    is_f64 = a_type == "f64"
    if (m, n) != (16, 8) and not (is_f64 and (m, n, k) == (8, 8, 4)):
        raise e.unsupported()
    width = 64 if is_f64 else 32
    a, b, c = (e.load_all(vector_items(operand), width) for operand in instr.args[1:4])
    targets = vector_items(instr.args[0])
    result = e.results(len(targets), width)
    types = [MATRIX_TYPE[name] for name in (a_type, b_type, c_type, d_type)]
    e.call("pe_mma", m, n, k, *types, a, b, c, result)
    e.assign_each(targets, width, result)


def _wmma(e: BlockEmitter, instr: Instr) -> None:
    if instr.parts[1] == "mma":
        _wmma_mma(e, instr)
    else:
        _wmma_memory(e, instr)


def _wmma_mma(e: BlockEmitter, instr: Instr) -> None:
    types = [part for part in instr.parts if part in TYPE_BYTES]
    d_type, c_type = types[0], types[-1]
    a_type = "f16" if len(types) == 2 else types[1]  # two types name d and c: the factors are f16
    if a_type not in ("f16", "bf16") or c_type not in ("f32", "f16"):
        raise e.unsupported()
    a, b, c = (e.load_all(vector_items(operand), 32) for operand in instr.args[1:4])
    targets = vector_items(instr.args[0])
    result = e.results(len(targets), 32)
    c_is_f32, d_is_f32 = int(c_type == "f32"), int(d_type == "f32")
    e.call("pe_wmma", *matrix_shape(instr), MATRIX_TYPE[a_type], c_is_f32, d_is_f32, a, b, c, result)
    e.assign_each(targets, 32, result)


def _wmma_memory(e: BlockEmitter, instr: Instr) -> None:
    """wmma.load.{a,b,c} and wmma.store.d."""
    m, n, k = matrix_shape(instr)
    rows, columns = {"a": (m, k), "b": (k, n)}.get(instr.parts[2], (m, n))
    element_size, column_major = TYPE_BYTES[instr.type], instr.has("col")
    if element_size not in (2, 4):
        raise e.unsupported()
    loads = instr.parts[1] == "load"
    memory, fragment = (instr.args[1], instr.args[0]) if loads else (instr.args[0], instr.args[1])
    assert isinstance(fragment, Vector)
    dense: Operand = Imm(rows if column_major else columns)
    space, count = memory_space(instr), len(fragment.items)
    address = e.address(memory, space)
    stride = e.load(instr.args[2] if len(instr.args) > 2 else dense, 32)
    values = e.results(count, 32) if loads else e.load_all(fragment.items, 32)
    shape = (rows, columns, int(column_major), element_size, count)
    e.call("pe_wmma_mem", int(loads), *shape, int(space == "shared"), address, f"&{stride}", values)
    if loads:
        e.assign_each(fragment.items, 32, values)


LOWERINGS: dict[str, Lowering] = {
    "ldmatrix": _ldmatrix,
    "stmatrix": _stmatrix,
    "movmatrix": _movmatrix,
    "mma": _mma,
    "wmma": _wmma,
}
