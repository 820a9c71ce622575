"""Helpers that several instruction classes share."""

from __future__ import annotations

import re
from collections.abc import Callable

from ...ptx.model import HALF_TYPES, Instr, Operand, type_bits
from ..emitter import BlockEmitter

Lowering = Callable[[BlockEmitter, Instr], None]

ROUNDING = {"rn": 0, "rm": 1, "rp": 2, "rz": 3, "rni": 0, "rmi": 1, "rpi": 2, "rzi": 3, "rna": 4}
SPACES = ("global", "shared", "local", "const", "param")


def rounding(instr: Instr) -> int:
    """The instruction's rounding mode as ``enum RoundingMode`` of the runtime; nearest even by default."""
    return next((ROUNDING[part] for part in instr.parts if part in ROUNDING), 0)


def memory_space(instr: Instr) -> str:
    """The state space of a memory instruction; "generic" when it names none."""
    for part in instr.parts[1:]:
        space = part.split("::")[0]
        if space in SPACES:
            return space
    return "generic"


def vector_length(instr: Instr) -> int:
    """Elements per lane: 4 for .v4."""
    return int(next((part[1:] for part in instr.parts if re.match(r"^v[248]$", part)), "1"))


def matrix_shape(instr: Instr) -> tuple[int, int, int]:
    """(M, N, K) of .m16n8k16."""
    for part in instr.parts:
        if match := re.match(r"^m(\d+)n(\d+)k(\d+)$", part):
            m, n, k = (int(size) for size in match.groups())
            return m, n, k
    raise ValueError("no matrix shape")


def float_source(e: BlockEmitter, instr: Instr, operand: Operand) -> str:
    """A floating point operand, with denormals flushed where the instruction says so."""
    value = e.value(operand, type_bits(instr.type))
    return f"ftz({value})" if instr.has("ftz") and instr.type == "f32" else value


def float_result(instr: Instr, expression: str) -> str:
    """Apply .sat and .ftz to an f32 result."""
    if instr.type == "f32":
        if instr.has("sat"):
            expression = f"sat_f32({expression})"
        if instr.has("ftz"):
            expression = f"ftz({expression})"
    return expression


def half_binary(e: BlockEmitter, instr: Instr, operation: str) -> None:
    """An operation (ADD, MIN, ... of ``enum BinaryOp``) on 16-bit floats, one or two a lane."""
    width = type_bits(instr.type)
    left, right = e.load(instr.args[1], width), e.load(instr.args[2], width)
    result = e.result(width)
    code = f"{'B_B' if instr.type.startswith('bf') else 'B_H'}{operation}"
    e.line(f"pe_hbin({code}, &{left}, &{right}, &{result}, {width // 16});")
    e.assign(instr.args[0], width, result)


def is_half(instr: Instr) -> bool:
    return instr.type in HALF_TYPES


def binary_call(e: BlockEmitter, instr: Instr, width: int, code: str) -> None:
    """An operation of ``pe_bin``, lane by lane."""
    e.assign(instr.args[0], width, binary_value(e, instr, width, code))


def binary_value(e: BlockEmitter, instr: Instr, width: int, code: str) -> str:
    left, right = e.load(instr.args[1], width), e.load(instr.args[2], width)
    result = e.result(width)
    e.line(f"pe_bin({code}, &{left}, &{right}, &{result});")
    return result


def unary_call(e: BlockEmitter, instr: Instr, width: int, code: str, result_width: int | None = None) -> None:
    """An operation of ``pe_un``, lane by lane."""
    source = e.load(instr.args[1], width)
    result = e.result(result_width or width)
    e.line(f"pe_un({code}, &{source}, &{result});")
    e.assign(instr.args[0], result_width or width, result)


def ternary_call(e: BlockEmitter, instr: Instr, width: int, code: str) -> None:
    """An operation of ``pe_tri``: the second and third operands are 32 bits wide."""
    first, second, third = e.load(instr.args[1], width), e.load(instr.args[2], 32), e.load(instr.args[3], 32)
    result = e.result(width)
    e.line(f"pe_tri({code}, &{first}, &{second}, &{third}, &{result});")
    e.assign(instr.args[0], width, result)
