"""mov, cvta, isspacep, mapa."""

from __future__ import annotations

from ...ptx.model import Instr, type_bits
from ..emitter import BlockEmitter
from .common import Lowering, memory_space

ISSPACEP_CODE = {"global": 0, "shared": 1, "local": 2, "const": 3, "param": 3}


def _mov(e: BlockEmitter, instr: Instr) -> None:
    destination, source = instr.args
    if instr.type == "pred":
        e.assign_predicate(destination, e.predicate(source))
        return
    width = type_bits(instr.type)
    if width == 128:
        raise e.unsupported()
    e.assign(destination, width, e.value(source, width))


def _cvta(e: BlockEmitter, instr: Instr) -> None:
    """Device generic pointers are host pointers: only shared and local addresses need converting."""
    destination, source = instr.args
    space, width = memory_space(instr), type_bits(instr.type)
    if space in ("global", "const", "param"):
        e.assign(destination, width, e.value(source, width))
        return
    address = e.load(source, 64)
    if space == "shared" and instr.has("to"):
        e.assign(destination, 64, f"pe_generic_to_shared(w, {e.mask}, &{address}, {instr.line})")
    elif space == "shared":
        e.assign(destination, 64, f"pe_shared_to_generic(w, &{address})")
    elif instr.has("to"):
        e.assign(destination, 64, f"pe_generic_to_local(w, &{address})")
    else:
        e.assign(destination, 64, f"pe_local_to_generic(w, &{address})")


def _isspacep(e: BlockEmitter, instr: Instr) -> None:
    address = e.load(instr.args[1], 64)
    code = ISSPACEP_CODE[instr.parts[1].split("::")[0]]
    e.assign_predicate(instr.args[0], f"pe_isspace(w, m, &{address}, {code})")


def _mapa(e: BlockEmitter, instr: Instr) -> None:
    width = type_bits(instr.type)
    destination, source, rank = instr.args
    address, rank_value = e.load(source, width), e.load(rank, 32)
    if width == 32:
        e.assign(destination, 32, f"pe_mapa32(w, {e.mask}, &{address}, &{rank_value})")
    elif any(part.startswith("shared") for part in instr.parts):
        low = e.hold(f"tr32({address})", 32)
        e.assign(destination, 32, f"pe_mapa32(w, {e.mask}, &{low}, &{rank_value})")
    else:
        e.assign(destination, 64, f"pe_mapa64(w, {e.mask}, &{address}, &{rank_value}, {instr.line})")


LOWERINGS: dict[str, Lowering] = {"mov": _mov, "cvta": _cvta, "isspacep": _isspacep, "mapa": _mapa}
