"""Logic, shifts and bit fields."""

from __future__ import annotations

from functools import partial

from ...ptx.model import Imm, Instr, type_bits
from ..emitter import BlockEmitter
from .common import Lowering, ternary_call, unary_call

PREDICATE_OPERATOR = {"and": "&", "or": "|", "xor": "^"}
PRMT_REPLICATES_SIGN = 0x8888  # selector bits that ask for a sign instead of a byte


def _logic(e: BlockEmitter, instr: Instr, *, operation: str) -> None:
    destination, left, right = instr.args
    if instr.type == "pred":
        operator = PREDICATE_OPERATOR[operation]
        e.assign_predicate(destination, f"({e.predicate(left)} {operator} {e.predicate(right)})")
        return
    width = type_bits(instr.type)
    e.assign(destination, width, f"{operation}{width}({e.value(left, width)}, {e.value(right, width)})")


def _not(e: BlockEmitter, instr: Instr) -> None:
    if instr.type == "pred":
        e.assign_predicate(instr.args[0], f"(~{e.predicate(instr.args[1])})")
        return
    width = type_bits(instr.type)
    e.assign(instr.args[0], width, f"not{width}({e.value(instr.args[1], width)})")


def _cnot(e: BlockEmitter, instr: Instr) -> None:
    width = type_bits(instr.type)
    is_zero = f"cmp_u{width}<0>({e.value(instr.args[1], width)}, bc{width}(0))"
    e.assign(instr.args[0], width, f"sel{width}({is_zero}, bc{width}(1), bc{width}(0))")


def _shl(e: BlockEmitter, instr: Instr) -> None:
    width = type_bits(instr.type)
    e.assign(
        instr.args[0], width, f"shl{width}({e.value(instr.args[1], width)}, {e.value(instr.args[2], 32)})"
    )


def _shr(e: BlockEmitter, instr: Instr) -> None:
    width = type_bits(instr.type)
    sign = "s" if instr.type[0] == "s" else "u"
    values = f"{e.value(instr.args[1], width)}, {e.value(instr.args[2], 32)}"
    e.assign(instr.args[0], width, f"shr_{sign}{width}({values})")


def _shf(e: BlockEmitter, instr: Instr) -> None:
    values = ", ".join(e.value(operand, 32) for operand in instr.args[1:4])
    flags = f"{str(instr.has('l')).lower()}, {str(instr.has('clamp')).lower()}"
    e.assign(instr.args[0], 32, f"shf({values}, {flags})")


def _lop3(e: BlockEmitter, instr: Instr) -> None:
    table = instr.args[4]
    if instr.has("or") or instr.has("and") or not isinstance(table, Imm):
        raise e.unsupported()
    values = ", ".join(e.value(operand, 32) for operand in instr.args[1:4])
    e.assign(instr.args[0], 32, f"lop3<{table.value & 255}>({values})")


def _prmt(e: BlockEmitter, instr: Instr) -> None:
    if len(instr.parts) > 2:
        raise e.unsupported()
    selector = instr.args[3]
    if isinstance(selector, Imm) and not selector.value & PRMT_REPLICATES_SIGN:
        values = f"{e.value(instr.args[1], 32)}, {e.value(instr.args[2], 32)}"
        e.assign(instr.args[0], 32, f"prmt_c<{selector.value & 0xFFFF}>({values})")
    else:
        ternary_call(e, instr, 32, "T_PRMT")


def _bfe(e: BlockEmitter, instr: Instr) -> None:
    ternary_call(e, instr, type_bits(instr.type), f"T_BFE_{instr.type.upper()}")


def _bfi(e: BlockEmitter, instr: Instr) -> None:
    width = type_bits(instr.type)
    destination, source, base, position, length = instr.args
    inserted, into = e.load(source, width), e.load(base, width)
    start, count, result = e.load(position, 32), e.load(length, 32), e.result(width)
    e.line(f"pe_bfi({int(width == 64)}, &{inserted}, &{into}, &{start}, &{count}, &{result});")
    e.assign(destination, width, result)


def _count(e: BlockEmitter, instr: Instr, *, operation: str) -> None:
    """popc and clz."""
    width = type_bits(instr.type)
    e.assign(instr.args[0], 32, f"{operation}{width}({e.value(instr.args[1], width)})")


def _brev(e: BlockEmitter, instr: Instr) -> None:
    width = type_bits(instr.type)
    unary_call(e, instr, width, f"U_BREV{width}")


def _bfind(e: BlockEmitter, instr: Instr) -> None:
    width, code = type_bits(instr.type), f"U_BFIND_{instr.type.upper()}"
    if not instr.has("shiftamt"):
        unary_call(e, instr, width, code, 32)
        return
    source, position = e.load(instr.args[1], width), e.result(32)
    e.line(f"pe_un({code}, &{source}, &{position});")
    none = e.hold(f"cmp_u32<0>({position}, bc32(~0u))", 1)
    e.assign(instr.args[0], 32, f"sel32({none}, {position}, sub32(bc32({width - 1}), {position}))")


LOWERINGS: dict[str, Lowering] = {
    **{operation: partial(_logic, operation=operation) for operation in ("and", "or", "xor")},
    "not": _not,
    "cnot": _cnot,
    "shl": _shl,
    "shr": _shr,
    "shf": _shf,
    "lop3": _lop3,
    "prmt": _prmt,
    "bfe": _bfe,
    "bfi": _bfi,
    "popc": partial(_count, operation="popc"),
    "clz": partial(_count, operation="clz"),
    "brev": _brev,
    "bfind": _bfind,
}
