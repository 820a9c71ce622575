"""wgmma: matrix products of a warpgroup (sm_90a)."""

from __future__ import annotations

from ...ptx.model import Imm, Instr, Vector
from ..emitter import ALL_LANES, BlockEmitter, vector_items
from .common import Lowering, matrix_shape
from .matrix import MATRIX_TYPE


def _wgmma(e: BlockEmitter, instr: Instr) -> None:
    operation = instr.parts[1]
    if operation == "fence":
        return
    if operation == "commit_group":
        e.line(f"pe_wgmma_commit(w, {e.mask});")
    elif operation == "wait_group":
        pending = instr.args[0]
        assert isinstance(pending, Imm)
        e.line(f"pe_wgmma_wait(w, {e.mask}, {pending.value});")
    elif operation == "mma_async" and not instr.has("sp"):
        _mma_async(e, instr)
    else:
        raise e.unsupported()


def _mma_async(e: BlockEmitter, instr: Instr) -> None:
    """Operands: d, a (registers or a descriptor), b, then scale-d, imm-scale-a and -b, imm-trans-a and -b."""
    _, n, k = matrix_shape(instr)
    d_type, a_type, b_type = [MATRIX_TYPE[part] for part in instr.parts if part in MATRIX_TYPE][:3]
    accumulators = vector_items(instr.args[0])
    a_operand = instr.args[1]
    a_in_registers = isinstance(a_operand, Vector)
    accumulator = e.load_all(accumulators, 32)
    b_descriptor = e.load(instr.args[2], 64)
    if a_in_registers:
        a_registers, a_descriptor = e.load_all(vector_items(a_operand), 32), "nullptr"
    else:
        a_registers, a_descriptor = "nullptr", f"&{e.load(a_operand, 64)}"
    rest = list(instr.args[3:])
    scale_d = e.predicate(rest.pop(0)) if rest else ALL_LANES
    immediates = [operand.value for operand in rest if isinstance(operand, Imm)]
    scale_a, scale_b = immediates[:2] if len(immediates) >= 2 else (1, 1)
    transposed = immediates[2:]
    if a_in_registers:
        transpose_a, transpose_b = 0, transposed[0] if transposed else 0
    else:
        transpose_a, transpose_b = transposed[:2] if len(transposed) >= 2 else (0, 0)
    operands = [a_registers, a_descriptor, f"&{b_descriptor}"]
    modifiers: list[str | int] = [scale_d, scale_a, scale_b, transpose_a, transpose_b]
    e.call("pe_wgmma", n, k, a_type, b_type, int(a_in_registers), *operands, *modifiers, d_type, accumulator)
    e.assign_each(accumulators, 32, accumulator)


LOWERINGS: dict[str, Lowering] = {"wgmma": _wgmma}
