"""The parser: operands, scopes, declarations, source locations, errors that name their line."""

from __future__ import annotations

import pytest
from ptxemu import PtxError
from ptxemu.ptx import Instr, parse
from ptxemu.ptx.model import FloatImm, Imm, Memory, Name, NegatedName, Not, Offset, Pair, Sink, Vector
from ptxemu.ptx.operands import parse_int, parse_operand, split_top

HEADER = ".version 8.0\n.target sm_80\n.address_size 64\n"


@pytest.mark.parametrize(
    ("text", "operand"),
    [
        ("%r1", Name("%r1")),
        ("-%f2", NegatedName("%f2")),
        ("shared+16", Offset("shared", 16)),
        ("%rd1-8", Offset("%rd1", -8)),
        ("0x1F", Imm(31)),
        ("-3", Imm(-3)),
        ("0f3F800000", FloatImm(0x3F800000, 4)),
        ("-0d3FF0000000000000", FloatImm(0xBFF0000000000000, 8)),
        ("[%rd4+-4]", Memory(Name("%rd4"), -4)),
        ("[%rd1, {%r1, 7}]", Memory(Name("%rd1"), 0, (Vector((Name("%r1"), Imm(7))),))),
        ("{%r1, _}", Vector((Name("%r1"), Sink()))),
        ("!%p1", Not(Name("%p1"))),
        ("%p1|%p2", Pair(Name("%p1"), Name("%p2"))),
    ],
)
def test_operands(text: str, operand: object) -> None:
    assert parse_operand(text) == operand


def test_numbers_and_lists() -> None:
    assert [parse_int(text) for text in ("10U", "0b101", "017", "-0x10")] == [10, 5, 15, -16]
    assert split_top("a, {b, c}, [d, e]") == ["a", "{b, c}", "[d, e]"] and split_top("") == []


def test_nested_scopes_get_unique_names() -> None:
    module = parse(
        HEADER
        + """.visible .entry k() {
  .reg .b32 %r<2>;
  { .reg .b32 %r0; mov.b32 %r0, 1; }
  mov.b32 %r0, 2;
}
"""
    )
    inner, outer = (statement for statement in module.functions["k"].body if isinstance(statement, Instr))
    assert outer.args[0] == Name("%r0") and inner.args[0] != outer.args[0]
    assert (inner.line, outer.line) == (6, 7)


def test_variables() -> None:
    module = parse(
        HEADER
        + ".extern .shared .align 16 .b8 dynamic[];\n.global .align 8 .v2 .f32 pairs[3][2];\n"
        + ".const .u32 table[2] = {1, 0x2};\n"
    )
    dynamic, pairs, table = module.variables.values()
    assert (dynamic.size, dynamic.extern, pairs.size, pairs.align) == (0, True, 48, 8)
    assert (table.space, table.init) == ("const", "{1, 0x2}")


def test_source_locations() -> None:
    module = parse(HEADER + '.file 1 "kernel.cu"\n.visible .entry k() {\n.loc 1 7 3\n ret;\n}\n')
    assert module.files == ["kernel.cu"] and (6, 0, 7) in module.locations


@pytest.mark.parametrize(
    ("body", "message"),
    [("mov.b32 %r0, @;", "line 5: cannot parse operand"), (".nonsense x;", "line 5: unknown directive")],
)
def test_errors_name_the_line(body: str, message: str) -> None:
    with pytest.raises(PtxError, match=message):
        parse(f"{HEADER}.visible .entry k() {{\n {body}\n}}\n")


def test_unfinished_text() -> None:
    with pytest.raises(PtxError, match="unexpected end"):
        parse(f"{HEADER}.visible .entry k() {{ ret;")
