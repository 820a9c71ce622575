"""Instructions without effect on values: fences and hints, traps, sleep, printf and assert."""

from __future__ import annotations

from ...ptx.model import Instr, Name
from ..emitter import BlockEmitter
from .common import Lowering


def _nop(e: BlockEmitter, instr: Instr) -> None:
    """Fences, prefetches and hints: the emulator's memory is coherent and its caches are not modelled."""


def _createpolicy(e: BlockEmitter, instr: Instr) -> None:
    e.assign(instr.args[0], 64, "bc64(0)")


def _nanosleep(e: BlockEmitter, instr: Instr) -> None:
    e.line(f"if ({e.mask}) w->yield = 1;")


def _trap(e: BlockEmitter, instr: Instr) -> None:
    e.call("pe_trap", f'"{instr.base}"')


def _local_offset(e: BlockEmitter, instr: Instr, index: int) -> int:
    """Offset in local memory of a call parameter."""
    operand = instr.args[index]
    assert isinstance(operand, Name)
    return e.layout.places[operand.name][1]


def _vprintf(e: BlockEmitter, instr: Instr) -> None:
    """Operands: result, format, argument buffer, each a call parameter in local memory."""
    zero, text, arguments, count = e.hold("bc32(0)", 32), e.result(64), e.result(64), e.result(32)
    e.call("pe_ldl_8_1", f"&{zero}", _local_offset(e, instr, 1), f"&{text}")
    e.call("pe_ldl_8_1", f"&{zero}", _local_offset(e, instr, 2), f"&{arguments}")
    e.line(f"pe_printf(w, {e.mask}, &{text}, &{arguments}, &{count});")
    e.call("pe_stl_4_1", f"&{zero}", _local_offset(e, instr, 0), f"&{count}")


def _assertfail(e: BlockEmitter, instr: Instr) -> None:
    """Operands: message, file, line, function, character size."""
    zero = e.hold("bc32(0)", 32)
    values = []
    for index, width in enumerate((64, 64, 32, 64)):
        value = e.result(width)
        e.call(f"pe_ldl_{width // 8}_1", f"&{zero}", _local_offset(e, instr, index), f"&{value}")
        values.append(f"&{value}")
    e.call("pe_assertfail", *values)


LOWERINGS: dict[str, Lowering] = {
    **dict.fromkeys(
        [
            "membar",
            "fence",
            "prefetch",
            "prefetchu",
            "discard",
            "applypriority",
            "griddepcontrol",
            "setmaxnreg",
            "pmevent",
        ],
        _nop,
    ),
    "createpolicy": _createpolicy,
    "nanosleep": _nanosleep,
    "trap": _trap,
    "brkpt": _trap,
    "__vprintf": _vprintf,
    "__assertfail": _assertfail,
}
