"""Instruction classes of the dynamic counters, in the order of ``enum InstrClass`` in ``runtime/abi.hpp``."""

from __future__ import annotations

from ..ptx.model import FLOAT_TYPES, HALF_TYPES, Instr

CLASSES = [
    "int", "fp32", "fp64", "half", "sfu", "cvt", "mov", "pred", "ld_global", "st_global", "ld_shared",
    "st_shared", "local", "atomic", "mma", "ldmatrix", "cp_async", "barrier", "branch", "warp", "other",
]  # fmt: skip

_BY_OPCODE = {
    "atomic": {"atom", "red"},
    "mma": {"mma", "wgmma", "wmma"},
    "ldmatrix": {"ldmatrix", "stmatrix"},
    "cp_async": {"cp"},
    "barrier": {"bar", "barrier", "mbarrier", "__clusterwait"},
    "branch": {"bra", "brx", "exit", "ret", "call"},
    "warp": {"shfl", "vote", "match", "redux", "activemask", "elect"},
    "pred": {"setp", "selp", "slct", "set", "testp"},
    "mov": {"mov", "cvta", "mapa"},
    "cvt": {"cvt"},
    "sfu": {"ex2", "lg2", "sin", "cos", "tanh", "rsqrt", "rcp", "sqrt"},
}
_CLASS_OF_OPCODE = {opcode: name for name, opcodes in _BY_OPCODE.items() for opcode in opcodes}
_OTHER = {
    "fence", "membar", "prefetch", "nanosleep", "createpolicy", "griddepcontrol", "setmaxnreg", "trap",
    "tensormap",
}  # fmt: skip


def classify(instr: Instr) -> str:
    """The class under which an instruction is counted."""
    base, type_name = instr.base, instr.type
    if base in ("ld", "ldu", "st"):
        return _classify_memory(instr)
    if instr.op.startswith("bar.warp"):
        return "warp"
    if base == "div" and type_name in FLOAT_TYPES:
        return "sfu"
    if base in _CLASS_OF_OPCODE:
        return _CLASS_OF_OPCODE[base]
    if type_name == "f32":
        return "fp32"
    if type_name == "f64":
        return "fp64"
    if type_name in HALF_TYPES:
        return "half"
    return "other" if base.startswith("__") or base in _OTHER else "int"


def _classify_memory(instr: Instr) -> str:
    space = "global"
    for part in instr.parts[1:]:
        name = part.split("::")[0]
        if name in ("shared", "local", "param", "const"):
            space = name
    if space == "local":
        return "local"
    if space in ("param", "const"):
        return "mov"
    return ("st_" if instr.base == "st" else "ld_") + space
