"""Floating point arithmetic and the special functions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ...ptx.model import Instr, Operand, type_bits
from ..emitter import BlockEmitter, convert
from .common import Lowering, float_result, float_source, half_binary, is_half, rounding, unary_call

ONE = {"f32": "bc32(0x3f800000u)", "f64": "bc64(0x3ff0000000000000ull)"}
INFINITY = {"f32": "bc32(0x7f800000u)", "f64": "bc64(0x7ff0000000000000ull)"}
SIGN_BITS = {16: "bc16(0x8000)", 32: "bc32(0x80008000u)"}  # of one and two 16-bit floats
VALUE_BITS = {16: "bc16(0x7fff)", 32: "bc32(0x7fff7fffu)"}


def rounded(e: BlockEmitter, instr: Instr, operation: str, sources: Sequence[Operand]) -> None:
    """``<operation>_<type><rounding>(sources...)`` of f32 or f64."""
    values = ", ".join(float_source(e, instr, source) for source in sources)
    result = f"{operation}_{instr.type}<{rounding(instr)}>({values})"
    e.assign(instr.args[0], type_bits(instr.type), float_result(instr, result))


def fma(e: BlockEmitter, instr: Instr) -> None:
    """fma, and mad of floats."""
    if not is_half(instr):
        rounded(e, instr, "fma", instr.args[1:4])
        return
    width = type_bits(instr.type)
    sources = ", ".join(f"&{e.load(source, width)}" for source in instr.args[1:4])
    result = e.result(width)
    bfloat, relu = int(instr.type.startswith("bf")), int(instr.has("relu"))
    e.line(f"pe_hfma({bfloat}, {relu}, {sources}, &{result}, {width // 16});")
    e.assign(instr.args[0], width, result)


def min_max(e: BlockEmitter, instr: Instr, operation: str) -> None:
    """min and max of two or three floats; without .NaN a NaN loses against a number."""
    propagates_nan = instr.has("NaN")
    if is_half(instr):
        half_binary(e, instr, operation.upper() + ("NAN" if propagates_nan else ""))
        return
    function = f"{operation}{'nan' if propagates_nan else ''}_{instr.type}"
    value = f"{function}({float_source(e, instr, instr.args[1])}, {float_source(e, instr, instr.args[2])})"
    if len(instr.args) > 3:
        value = f"{function}({value}, {float_source(e, instr, instr.args[3])})"
    e.assign(instr.args[0], type_bits(instr.type), value)


def half_sign(e: BlockEmitter, instr: Instr, operation: str) -> None:
    """neg and abs of 16-bit floats, one or two a lane."""
    width = type_bits(instr.type)
    source = e.value(instr.args[1], width)
    if operation == "neg":
        e.assign(instr.args[0], width, f"xor{width}({source}, {SIGN_BITS[width]})")
    else:
        e.assign(instr.args[0], width, f"and{width}({source}, {VALUE_BITS[width]})")


def _sqrt(e: BlockEmitter, instr: Instr) -> None:
    rounded(e, instr, "sqrt", instr.args[1:2])


def _rcp(e: BlockEmitter, instr: Instr) -> None:
    quotient = (
        f"div_{instr.type}<{rounding(instr)}>({ONE[instr.type]}, {float_source(e, instr, instr.args[1])})"
    )
    e.assign(instr.args[0], type_bits(instr.type), float_result(instr, quotient))


def _special_function(e: BlockEmitter, instr: Instr, *, code: str) -> None:
    """ex2, lg2, sin, cos, tanh, rsqrt: exact to the library's rounding, the device's are approximate."""
    if is_half(instr):
        _half_special_function(e, instr, code)
    elif instr.type == "f64":
        unary_call(e, instr, 64, f"U_{code}64")
    else:
        source, result = e.hold(float_source(e, instr, instr.args[1]), 32), e.result(32)
        e.line(f"pe_un(U_{code}, &{source}, &{result});")
        e.assign(instr.args[0], 32, float_result(instr, result))


def _half_special_function(e: BlockEmitter, instr: Instr, code: str) -> None:
    width = type_bits(instr.type)
    function = f"U_{code}_{'BF16X2' if instr.type.startswith('bf') else 'F16X2'}"
    result = e.result(32)
    if width == 16:  # the runtime works on whole V32 vectors: give it the value twice
        half = e.load(instr.args[1], 16)
        source = e.hold(f"join16({half}, {half})", 32)
        e.line(f"pe_un({function}, &{source}, &{result});")
        e.assign(instr.args[0], 16, f"half16({result}, 0)")
    else:
        source = e.hold(convert(e.value(instr.args[1], width), width, 32, False), 32)
        e.line(f"pe_un({function}, &{source}, &{result});")
        e.assign(instr.args[0], 32, result)


def _copysign(e: BlockEmitter, instr: Instr) -> None:
    width = type_bits(instr.type)
    values = f"{e.value(instr.args[1], width)}, {e.value(instr.args[2], width)}"
    e.assign(instr.args[0], width, f"copysign_{instr.type}({values})")


def _testp(e: BlockEmitter, instr: Instr) -> None:
    """Compare the magnitude's bits with those of infinity."""
    width = type_bits(instr.type)
    comparison = {"finite": 1, "infinite": 0, "notanumber": 6, "number": 2}[instr.parts[1]]
    magnitude = f"abs_{instr.type}({e.value(instr.args[1], width)})"
    e.assign_predicate(instr.args[0], f"cmp_u{width}<{comparison}>({magnitude}, {INFINITY[instr.type]})")


LOWERINGS: dict[str, Lowering] = {
    "fma": fma,
    "sqrt": _sqrt,
    "rcp": _rcp,
    "copysign": _copysign,
    "testp": _testp,
    **{
        opcode: partial(_special_function, code=opcode.upper())
        for opcode in ("rsqrt", "ex2", "lg2", "sin", "cos", "tanh")
    },
}
