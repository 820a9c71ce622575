"""Integer arithmetic, and the opcodes that it shares with floating point (add, mul, min, ...)."""

from __future__ import annotations

from functools import partial

from ...ptx.model import FLOAT_TYPES, Instr, Name, Operand, container_bits, type_bits
from ..emitter import BlockEmitter
from ..registers import CARRY, CARRY_READERS
from . import floating
from .common import Lowering, binary_call, binary_value, half_binary, is_half, ternary_call


def _carry_in(e: BlockEmitter, width: int) -> str:
    """0 or 1 in every lane."""
    return f"sel{width}({e.registers.variable(CARRY)}, bc{width}(1), bc{width}(0))"


def _assign_with_carry(e: BlockEmitter, instr: Instr, width: int, result: str, carry: str) -> None:
    if instr.has("cc"):
        e.assign_predicate(Name(CARRY), carry)
    e.assign(instr.args[0], width, result)


def _add_with_carry(e: BlockEmitter, instr: Instr, width: int, left: str, right: str) -> None:
    """add.cc, addc, mad.cc, madc: the carry is the overflow of either addition."""
    result = e.hold(f"add{width}({left}, {right})", width)
    carry = e.hold(f"cmp_u{width}<1>({result}, {left})", 1)
    if instr.base in CARRY_READERS:
        total = e.hold(f"add{width}({result}, {_carry_in(e, width)})", width)
        e.line(f"{carry} |= cmp_u{width}<1>({total}, {result});")
        result = total
    _assign_with_carry(e, instr, width, result, carry)


def _subtract_with_borrow(e: BlockEmitter, instr: Instr, width: int, left: str, right: str) -> None:
    result = e.hold(f"sub{width}({left}, {right})", width)
    borrow = e.hold(f"cmp_u{width}<1>({left}, {right})", 1)
    if instr.base in CARRY_READERS:
        carry_in = e.hold(_carry_in(e, width), width)
        e.line(f"{borrow} |= cmp_u{width}<1>({result}, {carry_in});")
        result = e.hold(f"sub{width}({result}, {carry_in})", width)
    _assign_with_carry(e, instr, width, result, borrow)


def _add_subtract(e: BlockEmitter, instr: Instr, *, operation: str) -> None:
    type_name, width = instr.type, container_bits(instr.type)
    if is_half(instr):
        half_binary(e, instr, operation.upper())
    elif type_name in FLOAT_TYPES:
        floating.rounded(e, instr, operation, instr.args[1:3])
    elif type_name == "f32x2":
        raise e.unsupported()
    elif instr.has("sat"):
        binary_call(e, instr, 32, "B_ADDSATS32" if operation == "add" else "B_SUBSATS32")
    elif instr.has("cc") or instr.base in CARRY_READERS:
        left, right = e.load(instr.args[1], width), e.load(instr.args[2], width)
        with_carry = _add_with_carry if operation == "add" else _subtract_with_borrow
        with_carry(e, instr, width, left, right)
    else:
        left, right = e.value(instr.args[1], width), e.value(instr.args[2], width)
        e.assign(instr.args[0], width, f"{operation}{width}({left}, {right})")


def _product(e: BlockEmitter, instr: Instr) -> tuple[str, int]:
    """Expression and width of an integer product: .wide, .hi or .lo."""
    type_name, width = instr.type, container_bits(instr.type)
    if instr.has("hi") and width == 64:
        return binary_value(e, instr, 64, "B_MULHIU64" if type_name == "u64" else "B_MULHIS64"), 64
    factors = f"{e.value(instr.args[1], width)}, {e.value(instr.args[2], width)}"
    if instr.has("wide"):
        if width == 64:
            raise e.unsupported()
        return f"mulwide_{type_name}({factors})", width * 2
    if instr.has("hi"):
        return f"mulhi_{type_name}({factors})", width
    return f"mullo{width}({factors})", width


def _mul(e: BlockEmitter, instr: Instr) -> None:
    if is_half(instr):
        half_binary(e, instr, "MUL")
    elif instr.type in FLOAT_TYPES:
        floating.rounded(e, instr, "mul", instr.args[1:3])
    else:
        product, width = _product(e, instr)
        e.assign(instr.args[0], width, product)


def _mul24(e: BlockEmitter, instr: Instr) -> None:
    def low_24_bits(operand: Operand) -> str:
        return f"shr_{instr.type}(shl32({e.value(operand, 32)}, bc32(8)), bc32(8))"

    e.assign(instr.args[0], 32, f"mullo32({low_24_bits(instr.args[1])}, {low_24_bits(instr.args[2])})")


def _mad(e: BlockEmitter, instr: Instr) -> None:
    if instr.type in FLOAT_TYPES:
        floating.fma(e, instr)
        return
    product, width = _product(e, instr)
    if instr.has("cc") or instr.base == "madc":
        _add_with_carry(e, instr, width, e.hold(product, width), e.load(instr.args[3], width))
    else:
        e.assign(instr.args[0], width, f"add{width}({product}, {e.value(instr.args[3], width)})")


def _div(e: BlockEmitter, instr: Instr) -> None:
    if instr.type in FLOAT_TYPES:
        floating.rounded(e, instr, "div", instr.args[1:3])
    else:
        binary_call(e, instr, container_bits(instr.type), f"B_DIV{instr.type.upper()}")


def _rem(e: BlockEmitter, instr: Instr) -> None:
    binary_call(e, instr, container_bits(instr.type), f"B_REM{instr.type.upper()}")


def _min_max(e: BlockEmitter, instr: Instr, *, operation: str) -> None:
    type_name, width = instr.type, container_bits(instr.type)
    if instr.has("xorsign"):
        raise e.unsupported()
    if type_name in FLOAT_TYPES:
        floating.min_max(e, instr, operation)
    elif type_name in ("s16x2", "u16x2"):
        left, right = e.load(instr.args[1], 32), e.load(instr.args[2], 32)
        halves = ", ".join(
            f"{operation}_{type_name[:3]}(half16({left}, {half}), half16({right}, {half}))" for half in (0, 1)
        )
        e.assign(instr.args[0], 32, f"join16({halves})")
    else:
        value = f"{operation}_{type_name}({e.value(instr.args[1], width)}, {e.value(instr.args[2], width)})"
        if instr.has("relu"):
            value = f"max_{type_name}({value}, bc{width}(0))"
        e.assign(instr.args[0], width, value)


def _sign(e: BlockEmitter, instr: Instr, *, operation: str) -> None:
    """neg and abs."""
    if is_half(instr):
        floating.half_sign(e, instr, operation)
        return
    width = type_bits(instr.type)
    value = e.value(instr.args[1], width)
    if instr.has("ftz") and instr.type == "f32":
        value = f"ftz({value})"
    e.assign(instr.args[0], width, f"{operation}_{instr.type}({value})")


def _dp4a(e: BlockEmitter, instr: Instr) -> None:
    ternary_call(e, instr, 32, f"T_DP4A_{instr.parts[1][0].upper()}{instr.parts[2][0].upper()}")


def _sad(e: BlockEmitter, instr: Instr) -> None:
    ternary_call(e, instr, 32, f"T_SAD_{instr.type.upper()}")


_add = partial(_add_subtract, operation="add")
_sub = partial(_add_subtract, operation="sub")

LOWERINGS: dict[str, Lowering] = {
    "add": _add,
    "addc": _add,
    "sub": _sub,
    "subc": _sub,
    "mul": _mul,
    "mul24": _mul24,
    "mad": _mad,
    "madc": _mad,
    "div": _div,
    "rem": _rem,
    "min": partial(_min_max, operation="min"),
    "max": partial(_min_max, operation="max"),
    "neg": partial(_sign, operation="neg"),
    "abs": partial(_sign, operation="abs"),
    "dp4a": _dp4a,
    "sad": _sad,
}
