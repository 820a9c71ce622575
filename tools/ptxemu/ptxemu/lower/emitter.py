"""Writes one basic block as a C++ function; the instruction modules say what to write through `BlockEmitter`.

Vocabulary of the generated code (``runtime/vec.hpp``): ``V16``/``V32``/``V64`` are 32 lanes of 16, 32 or 64
bits and ``P`` is a predicate, one bit a lane.  ``w`` is the warp, ``m`` the mask of active lanes, ``rf`` the
register file, ``v<n>`` a register, ``t<n>_`` a temporary.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence

from ..errors import PtxError
from ..ptx.model import (
    FloatImm,
    Imm,
    Instr,
    Memory,
    Name,
    NegatedName,
    Not,
    Offset,
    Operand,
    Sink,
    Vector,
)
from .layout import Layout
from .registers import Registers
from .special import special_register

ALL_LANES = "(~0u)"
GENERIC_SPACES = ("global", "generic", "const", "kparam")


def convert(expression: str, from_width: int, to_width: int, signed: bool) -> str:
    """Widen (by sign or zeros) or truncate an integer lane vector expression."""
    if from_width == to_width:
        return expression
    if from_width == 1 or to_width == 1:
        raise PtxError("predicate used as a value")
    if to_width < from_width:
        if from_width == 64:
            expression = f"tr32({expression})"
        return expression if to_width == 32 else f"tr16({expression})"
    extend = "sx" if signed else "zx"
    if from_width == 16:
        expression = f"{extend}32({expression})"
    return expression if to_width == 32 else f"{extend}64({expression})"


def constant(value: int, width: int) -> str:
    """A lane vector with the same value in every lane."""
    return f"bc{width}({value & ((1 << width) - 1)}{'ull' if width == 64 else 'u'})"


def vector_items(operand: Operand) -> list[Operand]:
    """The elements of ``{a, b}``; a scalar counts as one element."""
    return list(operand.items) if isinstance(operand, Vector) else [operand]


class BlockEmitter:
    """Collects the C++ statements of a block; `instr` is the instruction at hand."""

    def __init__(self, registers: Registers, layout: Layout, globals_: Mapping[str, str]) -> None:
        self.registers = registers
        self.layout = layout
        self.globals = globals_  # PTX name of a module variable -> C++ array
        self.lines: list[str] = []
        self.mask = "m"  # lanes that execute the instruction
        self.instr = Instr("nop", [], 0)
        self._temporaries = 0

    def begin(self, instr: Instr) -> None:
        self.instr = instr
        self.mask = f"({self.guard_mask(instr)})" if instr.guard else "m"

    def guard_mask(self, instr: Instr) -> str:
        """The active lanes whose guard predicate holds."""
        assert instr.guard is not None
        return f"m & {'~' if instr.guard.negated else ''}{self.registers.variable(instr.guard.register)}"

    def error(self, message: str) -> PtxError:
        return PtxError(f"line {self.instr.line}: {message}")

    def unsupported(self) -> PtxError:
        return self.error(f"unsupported {self.instr.op}")

    # ---- statements and temporaries

    def line(self, code: str) -> None:
        self.lines.append(code)

    def temp(self) -> str:
        self._temporaries += 1
        return f"t{self._temporaries}_"

    def hold(self, expression: str, width: int) -> str:
        """A new temporary with the value of an expression (width 1: a predicate)."""
        name = self.temp()
        self.line(f"{'P' if width == 1 else f'V{width}'} {name} = {expression};")
        return name

    def load(self, operand: Operand, width: int) -> str:
        """A new temporary with the value of an operand."""
        return self.hold(self.value(operand, width), width)

    def load_all(self, operands: Sequence[Operand], width: int) -> str:
        """A new array of lane vectors with the operands' values."""
        name = self.temp()
        values = ", ".join(self.value(operand, width) for operand in operands)
        self.line(f"V{width} {name}[{len(operands)}] = {{{values}}};")
        return name

    def result(self, width: int, *, zero: bool = False) -> str:
        """A new temporary for a runtime function to write to."""
        name = self.temp()
        start = "" if not zero else " = 0" if width == 1 else f" = bc{width}(0)"
        self.line(f"{'P' if width == 1 else f'V{width}'} {name}{start};")
        return name

    def results(self, count: int, width: int) -> str:
        """A new array of lane vectors for a runtime function to write to."""
        name = self.temp()
        self.line(f"V{width} {name}[{count}];")
        return name

    def call(self, function: str, *args: str | int) -> None:
        """A call of a runtime function for the executing lanes: ``function(w, mask, args..., PTX line)``."""
        self.line(f"{function}(w, {self.mask}, {', '.join(map(str, [*args, self.instr.line]))});")

    # ---- reading operands

    def value(self, operand: Operand, width: int, *, signed: bool = False) -> str:
        """C++ expression of an operand as a lane vector of `width` bits."""
        match operand:
            case Imm(value):
                return constant(value, width)
            case FloatImm():
                return constant(_float_bits(operand, width), width)
            case NegatedName(name):
                return f"neg_s{width}({self.value(Name(name), width)})"
            case Name(name) if name in self.registers:
                return convert(self.registers.variable(name), self.registers.width(name), width, signed)
            case Offset(name, offset) if name in self.registers:
                return f"add{width}({self.value(Name(name), width)}, bc{width}({offset}))"
            case Name(name):
                return self._symbol(name, 0, width)
            case Offset(name, offset):
                return self._symbol(name, offset, width)
            case Vector((item,)):
                return self.value(item, width, signed=signed)
            case Vector(items):
                return self._pack(items, width)
        raise self.error(f"unsupported operand {operand}")

    def _symbol(self, name: str, offset: int, width: int) -> str:
        if name.startswith("%") and name not in self.layout.places:
            special = special_register(name)
            if special is None:
                raise self.error(f"unknown special register {name}")
            return convert(special.expression, special.width, width, signed=False)
        if name == "WARP_SZ":
            return f"bc{width}(32)"
        if name in self.layout.places:
            space, address = self.layout.places[name]
            if space == "kparam":
                return f"bc64((uint64_t)w->params + {address + offset})"
            return f"bc{width}({address + offset}u)"
        if name in self.globals:
            return f"bc64((uint64_t){self.globals[name]} + {offset})"
        raise self.error(f"unknown symbol {name}")

    def _pack(self, items: Sequence[Operand], width: int) -> str:
        item_width = width // len(items)
        if item_width == 8:
            low_byte_pairs = [
                f"or16(zx8_16({self.value(low, 16)}), shl16({self.value(high, 16)}, bc32(8)))"
                for low, high in zip(items[::2], items[1::2], strict=True)
            ]
            return low_byte_pairs[0] if width == 16 else f"pack32({', '.join(low_byte_pairs)})"
        values = [self.value(item, item_width) for item in items]
        if len(items) == 2:
            return f"pack{width}({values[0]}, {values[1]})"
        if len(items) == 4:
            return f"pack64(pack32({values[0]}, {values[1]}), pack32({values[2]}, {values[3]}))"
        raise self.error(f"cannot pack {len(items)} elements")

    def predicate(self, operand: Operand) -> str:
        """C++ expression of a predicate operand."""
        match operand:
            case Not(inner):
                return f"(~{self.predicate(inner)})"
            case Name("PT"):
                return ALL_LANES
            case Imm(value):
                return ALL_LANES if value else "(0u)"
            case Name(name) if self.registers.types.get(name) == "pred":
                return self.registers.variable(name)
        raise self.error(f"predicate expected, got {operand}")

    def address(self, operand: Operand, space: str) -> str:
        """Arguments ``&base, offset`` of a memory operand; the base is 32-bit for shared and local memory."""
        if not isinstance(operand, Memory):
            raise self.error(f"memory operand expected, got {operand}")
        width = 64 if space in GENERIC_SPACES else 32
        return f"&{self.load(operand.base, width)}, {operand.offset}"

    # ---- writing results

    def assign(self, destination: Operand, width: int, expression: str, *, signed: bool = False) -> None:
        """Write a lane vector of `width` bits to a register, or its parts to a vector of registers."""
        match destination:
            case Sink():
                return
            case Vector((item,)):
                self.assign(item, width, expression, signed=signed)
            case Vector(items):
                self._unpack(items, width, expression)
            case _:
                variable, register_width = self._destination(destination)
                value = convert(expression, width, register_width, signed)
                if self.instr.guard:
                    value = f"sel{register_width}({self.mask}, {value}, {variable})"
                self.line(f"{variable} = {value};")

    def assign_each(self, destinations: Iterable[Operand], width: int, array: str) -> None:
        """Write the elements of a C++ array, one to each destination."""
        for number, destination in enumerate(destinations):
            self.assign(destination, width, f"{array}[{number}]")

    def assign_predicate(self, destination: Operand, expression: str) -> None:
        if isinstance(destination, Sink):
            return
        variable, _ = self._destination(destination)
        value = f"selp_({self.mask}, {expression}, {variable})" if self.instr.guard else expression
        self.line(f"{variable} = {value};")

    def _destination(self, destination: Operand) -> tuple[str, int]:
        if not isinstance(destination, Name) or destination.name not in self.registers:
            raise self.error(f"not a register: {destination}")
        return self.registers.variable(destination.name), self.registers.width(destination.name)

    def _unpack(self, items: Sequence[Operand], width: int, expression: str) -> None:
        whole = self.hold(expression, width)
        item_width = width // len(items)
        if len(items) == 2 and item_width >= 16:
            self.assign(items[0], item_width, f"lo{item_width}({whole})")
            self.assign(items[1], item_width, f"hi{item_width}({whole})")
        elif len(items) == 4 and item_width == 16:
            for number, item in enumerate(items):
                word = f"{'lo32' if number < 2 else 'hi32'}({whole})"
                self.assign(item, 16, f"{'hi16' if number % 2 else 'lo16'}({word})")
        elif item_width == 8:
            for number, item in enumerate(items):
                shifted = f"shr_u{width}({whole}, bc32({8 * number}))"
                self.assign(item, 16, f"zx8_16({shifted if width == 16 else f'tr16({shifted})'})")
        else:
            raise self.error(f"cannot unpack {len(items)} elements of {item_width} bits")


def _float_bits(operand: FloatImm, width: int) -> int:
    """The constant's bits as f32 (width 32) or f64 (width 64)."""
    bits, size = operand.bits, operand.size
    if size * 8 == width or width == 16:
        return bits
    raw = bits.to_bytes(size, "little")
    if width == 32:
        return int.from_bytes(struct.pack("<f", struct.unpack("<d", raw)[0]), "little")
    return int.from_bytes(struct.pack("<d", struct.unpack("<f", raw)[0]), "little")
