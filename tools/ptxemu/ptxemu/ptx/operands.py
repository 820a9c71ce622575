"""Operand syntax: integers, floats, registers, addresses, vectors."""

from __future__ import annotations

import re
import struct

from ..errors import PtxError
from .model import (
    ArgumentList,
    FloatImm,
    Imm,
    Memory,
    Name,
    NegatedName,
    Not,
    Offset,
    Operand,
    Pair,
    Sink,
    Vector,
)

_IDENTIFIER = r"[A-Za-z_$%][\w$.%]*"
_NAME = re.compile(rf"^{_IDENTIFIER}$")
_INTEGER = re.compile(r"^[+-]?(0[xX][0-9a-fA-F]+U?|0[bB][01]+U?|\d+U?)$")
_FLOAT = re.compile(r"^-?(0[fF][0-9a-fA-F]{8}|0[dD][0-9a-fA-F]{16}|\d+\.\d*(?:[eE][+-]?\d+)?)$")
_OFFSET = re.compile(rf"^({_IDENTIFIER})\s*([+-])\s*(.+)$")
_ADDRESS = re.compile(rf"^({_IDENTIFIER})\s*(?:\+\s*(-?\s*[0-9a-fxA-FX]+)|(-\s*[0-9a-fxA-FX]+))?$")


def split_top(text: str, separator: str = ",") -> list[str]:
    """Split at the separators outside brackets, each part stripped; "" gives []."""
    parts: list[str] = []
    depth, start = 0, 0
    for position, char in enumerate(text):
        if char in "[{(":
            depth += 1
        elif char in "]})":
            depth -= 1
        elif char == separator and depth == 0:
            parts.append(text[start:position].strip())
            start = position + 1
    last = text[start:].strip()
    if last or parts:
        parts.append(last)
    return parts


def parse_int(text: str) -> int:
    """A PTX integer constant: decimal, 0x, 0b or octal (leading 0), optional sign and U suffix."""
    digits = text.rstrip("U").strip()
    negative = digits.startswith("-")
    digits = digits.lstrip("+-")
    value = int(digits, 8) if re.match(r"^0[0-7]+$", digits) else int(digits, 0)
    return -value if negative else value


def parse_operand(text: str) -> Operand:
    """One operand of an instruction.

    Raises:
        PtxError: the text is none of the operand forms.
    """
    text = text.strip()
    if text == "_":
        return Sink()
    if text[0] == "[":
        address, *extra = split_top(text[1:-1])
        base, offset = _parse_address(address)
        return Memory(base, offset, tuple(parse_operand(item) for item in extra))
    if text[0] == "{":
        return Vector(tuple(parse_operand(item) for item in split_top(text[1:-1])))
    if text[0] == "(":
        return ArgumentList(tuple(parse_operand(item) for item in split_top(text[1:-1].strip())))
    if _INTEGER.match(text):
        return Imm(parse_int(text))
    if _FLOAT.match(text):
        return _parse_float(text)
    if text[0] == "!":
        return Not(parse_operand(text[1:]))
    if "|" in text:
        first, second = text.split("|")
        return Pair(parse_operand(first), parse_operand(second))
    if text[0] == "-" and _NAME.match(text[1:].strip()):
        return NegatedName(text[1:].strip())
    match = _OFFSET.match(text)
    if match and _INTEGER.match(match.group(3)):
        return Offset(match.group(1), parse_int(match.group(3)) * (1 if match.group(2) == "+" else -1))
    if _NAME.match(text):
        return Name(text)
    raise PtxError(f"cannot parse operand {text!r}")


def _parse_float(text: str) -> FloatImm:
    negative = text.startswith("-")
    digits = text.lstrip("-")
    if digits[:2] in ("0f", "0F"):
        return FloatImm(int(digits[2:], 16) ^ (1 << 31 if negative else 0), 4)
    if digits[:2] in ("0d", "0D"):
        return FloatImm(int(digits[2:], 16) ^ (1 << 63 if negative else 0), 8)
    return FloatImm(int.from_bytes(struct.pack("<d", float(text)), "little"), 8)


def _parse_address(text: str) -> tuple[Name | Imm, int]:
    text = text.strip()
    match = _ADDRESS.match(text)
    if match:
        offset = match.group(2) or match.group(3)
        return Name(match.group(1)), parse_int(offset.replace(" ", "")) if offset else 0
    if _INTEGER.match(text):
        return Imm(parse_int(text)), 0
    raise PtxError(f"cannot parse address {text!r}")
