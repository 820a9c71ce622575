"""cp.async, bulk and tensor (TMA) copies, tensormap."""

from __future__ import annotations

import re

from ...ptx.model import Imm, Instr, Memory, Name, Not, Operand, Sink
from ..emitter import BlockEmitter, vector_items
from .common import Lowering

# tensormap.replace: the order of ``enum TensorMapField`` of runtime/tensor_map.hpp
TENSOR_MAP_FIELDS = [
    "global_address", "rank", "box_dim", "global_dim", "global_stride", "element_stride", "elemtype",
    "interleave_layout", "swizzle_mode", "fill_mode",
]  # fmt: skip


def _spaces(instr: Instr) -> list[str]:
    return [space for part in instr.parts if (space := part.split("::")[0]) in ("shared", "global")]


def _cp(e: BlockEmitter, instr: Instr) -> None:
    parts = instr.parts
    if parts[1] == "async" and len(parts) > 2 and parts[2] in ("ca", "cg"):
        _cp_async(e, instr)
    elif instr.op == "cp.async.commit_group":
        e.line(f"pe_cp_commit(w, {e.mask});")
    elif instr.op == "cp.async.wait_group":
        e.call("pe_cp_wait", _immediate(instr, 0))
    elif instr.op == "cp.async.wait_all":
        e.line(f"pe_cp_wait_all(w, {e.mask}, {instr.line});")
    elif instr.op.startswith("cp.async.mbarrier.arrive"):
        e.call("pe_cp_mbar_arrive", e.address(instr.args[0], "shared"), int(instr.has("noinc")))
    elif instr.op == "cp.async.bulk.commit_group":
        e.line(f"pe_bulk_commit(w, {e.mask});")
    elif instr.op.startswith("cp.async.bulk.wait_group"):
        e.call("pe_bulk_wait", _immediate(instr, 0), int(instr.has("read")))
    elif instr.has("prefetch"):
        pass
    elif instr.parts[1] == "reduce" and not (instr.has("tensor") and instr.has("add")):
        raise e.unsupported()
    elif instr.has("tensor"):
        _tensor_copy(e, instr)
    else:
        _bulk_copy(e, instr)


def _immediate(instr: Instr, index: int) -> int:
    operand = instr.args[index]
    assert isinstance(operand, Imm)
    return operand.value


def _cp_async(e: BlockEmitter, instr: Instr) -> None:
    """Fourth operand: how many bytes to read (the rest is zeros), or a predicate that ignores the source."""
    destination = e.address(instr.args[0], "shared")
    source = e.address(instr.args[1], "global")
    source_size, ignored = "nullptr", "0"
    if len(instr.args) > 3:
        source_size, ignored = _cp_async_limit(e, instr.args[3])
    e.call("pe_cp_async", destination, source, _immediate(instr, 2), source_size, ignored)


def _cp_async_limit(e: BlockEmitter, operand: Operand) -> tuple[str, str]:
    width = 32
    if isinstance(operand, Name) and operand.name in e.registers:
        width = e.registers.width(operand.name)
    if isinstance(operand, Not) or width == 1:
        return "nullptr", e.predicate(operand)
    if isinstance(operand, Sink) or width == 64:  # an L2 cache policy
        return "nullptr", "0"
    return f"&{e.load(operand, 32)}", "0"


def _pointer(e: BlockEmitter, operand: Operand) -> str:
    return f"&{e.load(operand, 32)}"


def _tensor_copy(e: BlockEmitter, instr: Instr) -> None:
    rank = int(next(part[0] for part in instr.parts if re.match(r"^[1-5]d$", part)))
    im2col = instr.has("im2col")
    if any(part.startswith(("im2col::", "tile::")) for part in instr.parts):
        raise e.unsupported()
    is_load = _spaces(instr)[0] == "shared"
    map_operand = instr.args[1] if is_load else instr.args[0]
    assert isinstance(map_operand, Memory)
    tensor_map = e.address(map_operand, "global")
    coordinates = e.load_all(vector_items(map_operand.extra[0]), 32)
    if not is_load:
        source = e.address(instr.args[1], "shared")
        reduces = int(instr.parts[1] == "reduce")
        e.call("pe_tma_store", rank, reduces, tensor_map, coordinates, source)
        return
    destination = e.address(instr.args[0], "shared")
    barrier = e.address(instr.args[2], "shared")
    rest = list(instr.args[3:])
    offsets = e.load_all(vector_items(rest.pop(0)), 16) if im2col else "nullptr"
    multicast = _pointer(e, rest.pop(0)) if instr.has("multicast::cluster") else "nullptr"
    e.call(
        "pe_tma_load", rank, int(im2col), destination, tensor_map, coordinates, offsets, barrier, multicast
    )


def _bulk_copy(e: BlockEmitter, instr: Instr) -> None:
    match _spaces(instr)[:2]:
        case ["shared", "global"]:
            destination, source = e.address(instr.args[0], "shared"), e.address(instr.args[1], "global")
            size, barrier = _pointer(e, instr.args[2]), e.address(instr.args[3], "shared")
            multicast = _pointer(e, instr.args[4]) if instr.has("multicast::cluster") else "nullptr"
            e.call("pe_bulk_g2s", destination, source, size, barrier, multicast)
        case ["global", "shared"]:
            destination, source = e.address(instr.args[0], "global"), e.address(instr.args[1], "shared")
            e.call("pe_bulk_s2g", destination, source, _pointer(e, instr.args[2]))
        case _:
            raise e.unsupported()


def _tensormap(e: BlockEmitter, instr: Instr) -> None:
    spaces = _spaces(instr)
    if instr.parts[1] == "replace":
        space = spaces[0] if spaces else "global"
        address = e.address(instr.args[0], space)
        index = _immediate(instr, 1) if len(instr.args) > 2 else 0
        new_value = instr.args[-1]
        value = (
            e.load(new_value, 64) if instr.type == "b64" else e.hold(f"zx64({e.value(new_value, 32)})", 64)
        )
        field = TENSOR_MAP_FIELDS.index(instr.parts[3])
        e.call("pe_tensormap_replace", int(space == "shared"), address, field, index, f"&{value}")
    elif instr.parts[1] == "cp_fenceproxy" and spaces == ["global", "shared"]:
        e.call("pe_tensormap_copy", e.address(instr.args[0], "global"), e.address(instr.args[1], "shared"))
    else:
        raise e.unsupported()


LOWERINGS: dict[str, Lowering] = {"cp": _cp, "tensormap": _tensormap}
