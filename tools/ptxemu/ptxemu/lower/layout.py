"""Where a kernel's variables live: offsets in shared memory, in local memory and in the parameter buffer."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..ptx.model import Function, Instr, Module, Statement, Variable, operand_names
from .flatten import FlatKernel

MIN_SHARED_ALIGN = 16
MIN_LOCAL_ALIGN = 8


def align_up(value: int, alignment: int) -> int:
    return -(-value // alignment) * alignment


@dataclass
class Layout:
    """Offsets by variable name, and the sizes a launch needs, in bytes.

    `places` maps a name to its space (``shared``, ``local`` or ``kparam``) and its offset there.  Dynamic
    shared memory (``extern .shared``) follows the static part.
    """

    places: dict[str, tuple[str, int]] = field(default_factory=dict)
    shared_bytes: int = 0
    shared_align: int = MIN_SHARED_ALIGN
    has_dynamic_shared: bool = False
    local_bytes: int = 0
    params: list[tuple[int, int]] = field(default_factory=list)  # (offset, size) of each parameter
    param_bytes: int = 0


def lay_out(flat: FlatKernel, code: list[Statement]) -> Layout:
    """Place the variables of a flattened kernel and the module's shared variables that it mentions."""
    layout = Layout()
    _place_shared(layout, _shared_variables(flat.module, flat.variables, code))
    offset = 0
    for variable in flat.variables.values():
        if variable.space in ("local", "param"):
            offset = align_up(offset, max(variable.align, MIN_LOCAL_ALIGN))
            layout.places[variable.name] = ("local", offset)
            offset += variable.size
    layout.local_bytes = align_up(offset, 16)
    _place_params(layout, flat.kernel)
    return layout


def _shared_variables(module: Module, own: dict[str, Variable], code: list[Statement]) -> list[Variable]:
    used = {
        name for statement in code if isinstance(statement, Instr) for name in operand_names(statement.args)
    }
    of_module = [v for v in module.variables.values() if v.space == "shared" and v.name in used]
    return [v for v in own.values() if v.space == "shared"] + of_module


def _place_shared(layout: Layout, variables: list[Variable]) -> None:
    offset = 0
    dynamic = [v for v in variables if v.extern or v.size == 0]
    for variable in variables:
        layout.shared_align = max(layout.shared_align, variable.align)
        if variable in dynamic:
            continue
        offset = align_up(offset, variable.align)
        layout.places[variable.name] = ("shared", offset)
        offset += variable.size
    if dynamic:
        layout.has_dynamic_shared = True
        offset = align_up(offset, max(MIN_SHARED_ALIGN, *(v.align for v in dynamic)))
        for variable in dynamic:
            layout.places[variable.name] = ("shared", offset)
    layout.shared_bytes = offset


def _place_params(layout: Layout, kernel: Function) -> None:
    offset = 0
    for param in kernel.params:
        offset = align_up(offset, param.align)
        layout.places[param.name] = ("kparam", offset)
        layout.params.append((offset, param.size))
        offset += param.size
    layout.param_bytes = offset
