"""How each instruction becomes C++: `LOWERINGS` maps an opcode to the function that writes it."""

from __future__ import annotations

from . import (
    async_copy,
    atomics,
    bits,
    compare,
    control,
    convert,
    floating,
    integer,
    matrix,
    mbarrier,
    memory,
    move,
    warp,
    wgmma,
)
from .common import Lowering

LOWERINGS: dict[str, Lowering] = {
    **move.LOWERINGS,
    **memory.LOWERINGS,
    **atomics.LOWERINGS,
    **control.LOWERINGS,
    **integer.LOWERINGS,
    **floating.LOWERINGS,
    **bits.LOWERINGS,
    **compare.LOWERINGS,
    **convert.LOWERINGS,
    **warp.LOWERINGS,
    **matrix.LOWERINGS,
    **async_copy.LOWERINGS,
    **mbarrier.LOWERINGS,
    **wgmma.LOWERINGS,
}
