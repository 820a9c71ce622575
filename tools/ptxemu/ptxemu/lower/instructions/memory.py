"""ld and st."""

from __future__ import annotations

from ...ptx.model import TYPE_BYTES, Instr, Memory, Name, Operand, Vector, container_bits
from ..emitter import BlockEmitter
from .common import Lowering, memory_space, vector_length

C_UNSIGNED = {1: "uint8_t", 2: "uint16_t", 4: "uint32_t", 8: "uint64_t"}  # by bytes
# by space: the suffix of the runtime function, ``pe_ld<suffix>_<bytes>_<elements>``
SUFFIX = {"global": "g", "generic": "g", "const": "g", "shared": "s", "local": "l"}


def _space(e: BlockEmitter, instr: Instr, memory: Memory) -> str:
    """The space to access: .param is the parameter buffer, or local memory for a call's parameters."""
    space = memory_space(instr)
    if space != "param":
        return space
    base = memory.base
    if isinstance(base, Name) and base.name in e.layout.places:
        return e.layout.places[base.name][0]
    return "generic"


def _elements(instr: Instr, operand: Operand) -> list[Operand]:
    if isinstance(operand, Vector) and vector_length(instr) > 1:
        return list(operand.items)
    return [operand]


def _constant_address(e: BlockEmitter, memory: Memory, space: str) -> str | None:
    """C++ pointer of a uniform access: a kernel parameter or a ``.const`` variable."""
    if not isinstance(memory.base, Name):
        return None
    name = memory.base.name
    if space == "kparam":
        return f"w->params + {e.layout.places[name][1] + memory.offset}"
    if space == "const" and name in e.globals:
        return f"{e.globals[name]} + {memory.offset}"
    return None


def _ld(e: BlockEmitter, instr: Instr) -> None:
    destination, memory = instr.args[:2]
    assert isinstance(memory, Memory)
    type_name, size = instr.type, TYPE_BYTES[instr.type]
    if size == 16:
        raise e.unsupported()
    space, width, signed = _space(e, instr, memory), container_bits(type_name), type_name[0] == "s"
    destinations = _elements(instr, destination)
    pointer = _constant_address(e, memory, space)
    if pointer:
        values = [
            f"bc{width}(*(const {C_UNSIGNED[size]}*)({pointer} + {number * size}))"
            for number in range(len(destinations))
        ]
    else:
        address, count = e.address(memory, space), vector_length(instr)
        loaded = e.results(count, width)
        e.call(f"pe_ld{SUFFIX[space]}_{size}_{count}", address, loaded)
        values = [f"{loaded}[{number}]" for number in range(count)]
    for target, value in zip(destinations, values, strict=True):
        e.assign(target, width, f"sx8_16({value})" if type_name == "s8" else value, signed=signed)


def _st(e: BlockEmitter, instr: Instr) -> None:
    if instr.has("async") or TYPE_BYTES[instr.type] == 16:
        raise e.unsupported()
    memory, source = instr.args[:2]
    assert isinstance(memory, Memory)
    space, size = _space(e, instr, memory), TYPE_BYTES[instr.type]
    address = e.address(memory, space)
    values = e.load_all(_elements(instr, source), container_bits(instr.type))
    e.call(f"pe_st{SUFFIX[space]}_{size}_{vector_length(instr)}", address, values)


LOWERINGS: dict[str, Lowering] = {"ld": _ld, "ldu": _ld, "st": _st}
