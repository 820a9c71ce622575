"""What the parser makes of PTX text: modules, functions, variables, instructions and operands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

TYPE_BYTES = {
    "b8": 1, "u8": 1, "s8": 1,
    "b16": 2, "u16": 2, "s16": 2, "f16": 2, "bf16": 2,
    "b32": 4, "u32": 4, "s32": 4, "f32": 4, "f16x2": 4, "bf16x2": 4, "tf32": 4,
    "b64": 8, "u64": 8, "s64": 8, "f64": 8, "f32x2": 8,
    "b128": 16,
    "pred": 0,
}  # fmt: skip

FLOAT_TYPES = frozenset({"f16", "bf16", "f32", "f64", "f16x2", "bf16x2", "tf32"})
HALF_TYPES = frozenset({"f16", "bf16", "f16x2", "bf16x2"})


def type_bits(type_name: str) -> int:
    """Size of a PTX type in bits."""
    return TYPE_BYTES[type_name] * 8


def container_bits(type_name: str) -> int:
    """Width of the lane vector that holds a PTX type: 8-bit values live in 16-bit lanes."""
    return max(16, type_bits(type_name))


# ---------------------------------------------------------------- operands


@dataclass(frozen=True)
class Name:
    """A register, special register, variable, label or function."""

    name: str


@dataclass(frozen=True)
class NegatedName:
    """``-%r1``."""

    name: str


@dataclass(frozen=True)
class Offset:
    """``symbol+8``: a variable's address or a register, plus a constant."""

    name: str
    offset: int


@dataclass(frozen=True)
class Imm:
    """An integer constant."""

    value: int


@dataclass(frozen=True)
class FloatImm:
    """A floating point constant as its IEEE bits; `size` is 4 or 8 bytes."""

    bits: int
    size: int


@dataclass(frozen=True)
class Memory:
    """``[base+offset, extra...]``; `extra` holds a tensor copy's coordinates."""

    base: Name | Imm
    offset: int
    extra: tuple[Operand, ...] = ()


@dataclass(frozen=True)
class Vector:
    """``{a, b}``."""

    items: tuple[Operand, ...]


@dataclass(frozen=True)
class ArgumentList:
    """``(a, b)`` of a call."""

    items: tuple[Operand, ...]


@dataclass(frozen=True)
class Not:
    """``!%p1``."""

    operand: Operand


@dataclass(frozen=True)
class Pair:
    """``%p1|%p2``."""

    first: Operand
    second: Operand


@dataclass(frozen=True)
class Sink:
    """``_``: a result nobody wants."""


Operand: TypeAlias = (
    Name | NegatedName | Offset | Imm | FloatImm | Memory | Vector | ArgumentList | Not | Pair | Sink
)


def operand_names(operands: Iterable[Operand]) -> Iterator[str]:
    """Every name that the operands mention, in order."""
    for operand in operands:
        match operand:
            case Name(name) | NegatedName(name) | Offset(name, _):
                yield name
            case Memory(base, _, extra):
                yield from operand_names((base, *extra))
            case Vector(items) | ArgumentList(items):
                yield from operand_names(items)
            case Not(inner):
                yield from operand_names((inner,))
            case Pair(first, second):
                yield from operand_names((first, second))
            case _:
                pass


def map_names(operand: Operand, rename: Callable[[str], str]) -> Operand:
    """The operand with every name replaced by ``rename(name)``."""
    match operand:
        case Name(name):
            return Name(rename(name))
        case NegatedName(name):
            return NegatedName(rename(name))
        case Offset(name, offset):
            return Offset(rename(name), offset)
        case Memory(base, offset, extra):
            renamed = Name(rename(base.name)) if isinstance(base, Name) else base
            return Memory(renamed, offset, tuple(map_names(item, rename) for item in extra))
        case Vector(items):
            return Vector(tuple(map_names(item, rename) for item in items))
        case ArgumentList(items):
            return ArgumentList(tuple(map_names(item, rename) for item in items))
        case Not(inner):
            return Not(map_names(inner, rename))
        case Pair(first, second):
            return Pair(map_names(first, rename), map_names(second, rename))
        case _:
            return operand


# ---------------------------------------------------------------- instructions, functions, modules


@dataclass(frozen=True)
class Guard:
    """``@%p1`` or ``@!%p1`` before an instruction."""

    register: str
    negated: bool

    def inverted(self) -> Guard:
        return Guard(self.register, not self.negated)


@dataclass
class Instr:
    """One instruction: opcode with its modifiers, operands, PTX line, guard, and its text for messages."""

    op: str
    args: list[Operand]
    line: int
    guard: Guard | None = None
    text: str = ""

    @cached_property
    def parts(self) -> list[str]:
        """The opcode split at its dots: ``["ld", "global", "v4", "f32"]``."""
        return self.op.split(".")

    @property
    def base(self) -> str:
        return self.parts[0]

    @property
    def type(self) -> str:
        """The last modifier, which for most instructions is the operand type."""
        return self.parts[-1]

    def has(self, modifier: str) -> bool:
        return modifier in self.parts

    def guarded_by(self, guard: Guard | None) -> Instr:
        return Instr(self.op, self.args, self.line, guard, self.text)


@dataclass(frozen=True)
class Label:
    name: str
    line: int


Statement: TypeAlias = Instr | Label


@dataclass
class Variable:
    """A variable or parameter: `size` in bytes (0 for ``extern .shared []``), `init` the text after ``=``."""

    name: str
    space: str
    align: int
    size: int
    element_type: str
    init: str | None = None
    extern: bool = False


@dataclass
class Function:
    """An ``.entry`` or ``.func``; names are unique within it (nested scopes are flattened)."""

    name: str
    is_entry: bool
    params: list[Variable]
    returns: list[Variable]
    registers: dict[str, str] = field(default_factory=dict)  # name -> type
    variables: dict[str, Variable] = field(default_factory=dict)  # shared, local, param
    body: list[Statement] = field(default_factory=list)
    branch_targets: dict[str, list[str]] = field(default_factory=dict)  # .branchtargets label -> labels
    attributes: dict[str, str] = field(default_factory=dict)  # .maxntid and the like
    has_body: bool = False


@dataclass
class Module:
    """A PTX file.  `locations` are (first PTX line, index into `files`, source line), from ``.loc``."""

    target: str = ""
    files: list[str] = field(default_factory=list)
    locations: list[tuple[int, int, int]] = field(default_factory=list)
    variables: dict[str, Variable] = field(default_factory=dict)
    functions: dict[str, Function] = field(default_factory=dict)
