"""setp, set, selp, slct."""

from __future__ import annotations

from ...ptx.model import FLOAT_TYPES, Instr, Operand, Pair, container_bits, type_bits
from ..emitter import BlockEmitter
from .bits import PREDICATE_OPERATOR
from .common import Lowering

# comparison codes of the AVX-512 compare instructions, which the lane vectors take as template arguments
INTEGER_CODE = {"eq": 0, "ne": 4, "lt": 1, "le": 2, "gt": 6, "ge": 5, "lo": 1, "ls": 2, "hi": 6, "hs": 5}
FLOAT_CODE = {
    "eq": 0, "ne": 12, "lt": 17, "le": 18, "gt": 30, "ge": 29, "equ": 8, "neu": 4, "ltu": 25, "leu": 26,
    "gtu": 22, "geu": 21, "num": 7, "nan": 3,
}  # fmt: skip
TRUE_VALUE = {"f32": 0x3F800000, "f16": 0x3C00, "bf16": 0x3F80}  # of set; all ones for integers


def _comparison(e: BlockEmitter, instr: Instr, type_name: str, left: Operand, right: Operand) -> str:
    operation = instr.parts[1]
    if type_name in ("f16", "bf16"):
        values = ", ".join(f"cvt_f32_{type_name}({e.value(operand, 16)})" for operand in (left, right))
        return f"cmp_f32<{FLOAT_CODE[operation]}>({values})"
    if type_name in FLOAT_TYPES:
        flush = instr.has("ftz") and type_name == "f32"
        width = type_bits(type_name)
        values = ", ".join(
            f"ftz({e.value(operand, width)})" if flush else e.value(operand, width)
            for operand in (left, right)
        )
        return f"cmp_{type_name}<{FLOAT_CODE[operation]}>({values})"
    width, sign = container_bits(type_name), "s" if type_name[0] == "s" else "u"
    return f"cmp_{sign}{width}<{INTEGER_CODE[operation]}>({e.value(left, width)}, {e.value(right, width)})"


def _setp(e: BlockEmitter, instr: Instr) -> None:
    destination, left, right = instr.args[:3]
    if instr.type in ("f16x2", "bf16x2"):
        _setp_half_pair(e, instr)
        return
    value = _comparison(e, instr, instr.type, left, right)
    inverse = f"(~{value})"
    combine = next((part for part in instr.parts[2:-1] if part in PREDICATE_OPERATOR), None)
    if combine:
        operator, condition = PREDICATE_OPERATOR[combine], e.predicate(instr.args[3])
        value, inverse = f"({value} {operator} {condition})", f"({inverse} {operator} {condition})"
    if isinstance(destination, Pair):
        first, second = e.hold(value, 1), e.hold(inverse, 1)
        e.assign_predicate(destination.first, first)
        e.assign_predicate(destination.second, second)
    else:
        e.assign_predicate(destination, value)


def _setp_half_pair(e: BlockEmitter, instr: Instr) -> None:
    destination, left, right = instr.args[:3]
    assert isinstance(destination, Pair)
    code, scalar = FLOAT_CODE[instr.parts[1]], instr.type[:-2]
    for target, half in ((destination.first, "lo16"), (destination.second, "hi16")):
        values = ", ".join(f"cvt_f32_{scalar}({half}({e.value(operand, 32)}))" for operand in (left, right))
        e.assign_predicate(target, f"cmp_f32<{code}>({values})")


def _set(e: BlockEmitter, instr: Instr) -> None:
    result_type, source_type = instr.parts[-2:]
    if source_type in ("f16x2", "bf16x2"):
        raise e.unsupported()
    width = type_bits(result_type)
    condition = _comparison(e, instr, source_type, instr.args[1], instr.args[2])
    true_value = TRUE_VALUE.get(result_type, (1 << width) - 1)
    e.assign(instr.args[0], width, f"sel{width}({condition}, bc{width}({true_value}u), bc{width}(0))")


def _selp(e: BlockEmitter, instr: Instr) -> None:
    destination, if_true, if_false, condition = instr.args
    predicate = e.predicate(condition)
    if instr.type == "pred":
        e.assign_predicate(
            destination, f"selp_({predicate}, {e.predicate(if_true)}, {e.predicate(if_false)})"
        )
        return
    width = type_bits(instr.type)
    values = f"{e.value(if_true, width)}, {e.value(if_false, width)}"
    e.assign(destination, width, f"sel{width}({predicate}, {values})")


def _slct(e: BlockEmitter, instr: Instr) -> None:
    """The first value where the selector is not negative."""
    destination, first, second, selector = instr.args
    width, value = type_bits(instr.parts[-2]), e.value(selector, 32)
    if instr.type == "s32":
        condition = f"cmp_s32<{INTEGER_CODE['ge']}>({value}, bc32(0))"
    else:
        condition = f"cmp_f32<{FLOAT_CODE['ge']}>({value}, bc32(0))"
    values = f"{e.value(first, width)}, {e.value(second, width)}"
    e.assign(destination, width, f"sel{width}({condition}, {values})")


LOWERINGS: dict[str, Lowering] = {"setp": _setp, "set": _set, "selp": _selp, "slct": _slct}
