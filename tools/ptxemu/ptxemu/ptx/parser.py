"""PTX text to `Module`.

Scopes (``{ ... }`` from inline assembly) are flattened: registers, variables and labels declared in a nested
scope are renamed, so that every name is unique within its function.
"""

from __future__ import annotations

import bisect
import re
from dataclasses import dataclass
from typing import NamedTuple

from ..errors import PtxError
from .model import TYPE_BYTES, Function, Guard, Instr, Label, Module, Variable, map_names
from .operands import parse_int, parse_operand, split_top

_HEADER = re.compile(r"\.(version|target|address_size)\b([^\n]*)")
_SECTION = re.compile(r"\.section\s+\S+\s*")
_FUNCTION = re.compile(r"((?:\.(?:visible|extern|weak|common)\s+)*)\.(entry|func)\b")
_IGNORED_STATEMENT = re.compile(r"\.(pragma|alias|maxnreg)\b[^;]*;")
_FUNCTION_NAME = re.compile(r"[\w$%.]+")
_ATTRIBUTE = re.compile(r"\.(\w+)\s*([^\n{;.]*)")
_LABEL = re.compile(r"([A-Za-z_$%][\w$]*)\s*:(?!:)")
_BRANCH_TARGETS = re.compile(r"\.branchtargets\s+([^;]*);")
_CALL_PROTOTYPE = re.compile(r"\.callprototype\b[^;]*;")
_REGISTERS = re.compile(r"\.reg\s*(?:\.v[24]\s*)?\.(\w+)\s+(.*)$", re.S)
_REGISTER_RANGE = re.compile(r"^([\w$%]+)<(\d+)>$")
_GUARD = re.compile(r"^@(!?)\s*([\w$%]+)\s+(.*)$", re.S)
_OPCODE = re.compile(r"^([\w.:]+)\s*(.*)$", re.S)
_STRING = re.compile(r'"(?:\\.|[^"\\])*"')
_SPACE = re.compile(r"\s*")

Scope = dict[str, str]  # name in the text -> unique name


def parse(source: str) -> Module:
    """Parse a PTX file.

    Raises:
        PtxError: naming the line that cannot be parsed.
    """
    module = _Parser(source).parse()
    module.files, module.locations = _source_locations(source)
    return module


def _strip_comments(source: str) -> str:
    """Remove comments and .loc/.file directives, keeping the line numbers."""
    pattern = re.compile(r'"(?:\\.|[^"\\\n])*"|//[^\n]*|/\*.*?\*/', re.S)

    def replacement(match: re.Match[str]) -> str:
        text = match.group(0)
        return text if text[0] == '"' else "\n" * text.count("\n")

    return re.sub(r"(?m)^[ \t]*\.(loc|file)\b[^\n]*$", "", pattern.sub(replacement, source))


def _source_locations(source: str) -> tuple[list[str], list[tuple[int, int, int]]]:
    """File names and (first PTX line, file index, source line), from .file and .loc directives."""
    files: list[str] = []
    file_index: dict[int, int] = {}
    for match in re.finditer(r'(?m)^[ \t]*\.file\s+(\d+)\s+"([^"]*)"', source):
        file_index[int(match.group(1))] = len(files)
        files.append(match.group(2))
    locations = []
    for number, line in enumerate(source.split("\n"), 1):
        match_loc = re.match(r"\s*\.loc\s+(\d+)\s+(\d+)", line)
        if match_loc and int(match_loc.group(1)) in file_index:
            locations.append((number, file_index[int(match_loc.group(1))], int(match_loc.group(2))))
        elif re.search(r"\.(entry|func)\b", line):
            locations.append((number, 0, 0))
    return files, locations


class _PendingInstruction(NamedTuple):
    text: str
    line: int
    scopes: list[Scope]


@dataclass
class _PendingTargets:
    labels: list[str]
    scopes: list[Scope]


def _resolve(name: str, scopes: list[Scope]) -> str:
    for scope in reversed(scopes):
        if name in scope:
            return scope[name]
    return name


class _Parser:
    def __init__(self, source: str) -> None:
        self.text = _strip_comments(source)
        self.position = 0
        self.module = Module()
        self.renamed = 0
        self.line_starts = [0, *(match.end() for match in re.finditer("\n", self.text))]

    # ---- scanning

    def line(self, position: int | None = None) -> int:
        return bisect.bisect_right(self.line_starts, self.position if position is None else position)

    def skip_space(self) -> None:
        match = _SPACE.match(self.text, self.position)
        assert match is not None  # the pattern matches the empty string
        self.position = match.end()

    def peek(self) -> str:
        self.skip_space()
        if self.position >= len(self.text):
            raise PtxError(f"line {self.line()}: unexpected end of the file")
        return self.text[self.position]

    def accept(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        match = pattern.match(self.text, self.position)
        if match:
            self.position = match.end()
        return match

    def until(self, terminators: str) -> str:
        """Text up to one of the terminators outside brackets and strings; stops on the terminator."""
        start, depth = self.position, 0
        while self.position < len(self.text):
            char = self.text[self.position]
            if char == '"' and self.accept(_STRING):
                continue
            if depth == 0 and char in terminators:
                break
            if char in "([{":
                depth += 1
            elif char in ")]}":
                depth -= 1
            self.position += 1
        return self.text[start : self.position]

    # ---- module level

    def parse(self) -> Module:
        while True:
            self.skip_space()
            if self.position >= len(self.text):
                return self.module
            self.module_statement()

    def module_statement(self) -> None:
        if match := self.accept(_HEADER):
            if match.group(1) == "target":
                self.module.target = match.group(2).strip()
        elif match := self.accept(_SECTION):
            self.position = self.text.index("}", match.end()) + 1
        elif self.text[self.position] == "}":
            self.position += 1
        elif match := self.accept(_FUNCTION):
            self.function(is_entry=match.group(2) == "entry")
        elif self.accept(_IGNORED_STATEMENT):
            pass
        else:
            start = self.position
            text = self.until(";")
            self.position += 1
            variables = self.variables(text)
            if variables is None:
                raise PtxError(f"line {self.line(start)}: unknown module statement {text[:80]!r}")
            for variable in variables:
                if variable.name not in self.module.variables or not variable.extern:
                    self.module.variables[variable.name] = variable

    def variables(self, text: str) -> list[Variable] | None:
        """The variables of one declaration, or None when it is no declaration."""
        declaration, equals, init = text.strip().partition("=")
        extern = bool(re.search(r"\.extern\b", declaration))
        declaration = re.sub(r"\.(visible|extern|weak|common)\b", "", declaration)
        declaration = re.sub(r"\.attribute\s*\([^)]*\)", "", declaration)
        space = re.search(r"\.(global|const|shared|local|param)\b", declaration)
        if not space:
            return None
        rest = declaration[space.end() :]
        align, vector = 0, 1
        if match := re.search(r"\.align\s+(\d+)", rest):
            align = int(match.group(1))
            rest = rest.replace(match.group(0), " ")
        rest = re.sub(r"\.(ptr|global|const|shared|local)\b", "", rest)
        if match := re.search(r"\.v([24])\b", rest):
            vector = int(match.group(1))
            rest = rest.replace(match.group(0), " ")
        typed = re.match(r"\s*\.(\w+)\s+(.*)$", rest, re.S)
        if not typed:
            raise PtxError(f"cannot parse declaration {text.strip()[:80]!r}")
        element_type = typed.group(1)
        element_size = TYPE_BYTES[element_type]
        result = []
        for declarator in split_top(typed.group(2)):
            named = re.match(r"^([\w$%.]+)\s*((?:\[[^\]]*\])*)\s*$", declarator)
            if not named:
                raise PtxError(f"cannot parse declaration {declarator!r}")
            count = vector
            for dimension in re.findall(r"\[([^\]]*)\]", named.group(2)):
                count *= parse_int(dimension) if dimension.strip() else 0
            result.append(
                Variable(
                    named.group(1),
                    space.group(1),
                    max(align, element_size * vector),
                    element_size * count,
                    element_type,
                    init.strip() if equals else None,
                    extern,
                )
            )
        return result

    # ---- functions

    def function(self, *, is_entry: bool) -> None:
        returns = self.parameters() if self.peek() == "(" else []
        self.skip_space()
        match = self.accept(_FUNCTION_NAME)
        if not match:
            raise PtxError(f"line {self.line()}: function name expected")
        function = Function(match.group(0), is_entry, self.parameters(), returns)
        while True:
            char = self.peek()
            if char == ";":
                self.position += 1
                break
            if char == "{":
                function.has_body = True
                self.position += 1
                _BodyParser(self, function).parse()
                break
            attribute = self.accept(_ATTRIBUTE)
            if not attribute:
                raise PtxError(f"line {self.line()}: unexpected text after function header")
            function.attributes[attribute.group(1)] = attribute.group(2).strip()
        if function.has_body or function.name not in self.module.functions:
            self.module.functions[function.name] = function

    def parameters(self) -> list[Variable]:
        if self.peek() != "(":
            return []
        self.position += 1
        text = self.until(")")
        self.position += 1
        result: list[Variable] = []
        for declaration in split_top(text):
            register = re.match(r"\s*\.reg\s+\.(\w+)\s+(\S+)", declaration)
            if register:
                element_type = register.group(1)
                size = TYPE_BYTES[element_type]
                result.append(Variable(register.group(2), "reg", 0, size, element_type))
            elif declaration:
                result += self.variables(declaration) or []
        return result


class _BodyParser:
    """One function body: first the declarations of all scopes, then the instructions with complete scopes."""

    def __init__(self, parser: _Parser, function: Function) -> None:
        self.parser = parser
        self.function = function
        self.scopes: list[Scope] = [{}]
        self.labels: set[str] = set()
        self.pending: list[Label | _PendingInstruction] = []
        self.pending_targets: dict[str, _PendingTargets] = {}

    def declare(self, name: str) -> str:
        """Enter a name into the innermost scope; returns its unique name."""
        function = self.function
        unique = name
        if name in function.registers or name in function.variables or name in self.labels:
            self.parser.renamed += 1
            unique = f"{name}$s{self.parser.renamed}"
        self.scopes[-1][name] = unique
        return unique

    def parse(self) -> None:
        while self.scopes:
            self.statement()
        for item in self.pending:
            self.function.body.append(item if isinstance(item, Label) else self.instruction(item))
        for name, targets in self.pending_targets.items():
            self.function.branch_targets[name] = [_resolve(label, targets.scopes) for label in targets.labels]

    def statement(self) -> None:
        parser = self.parser
        char = parser.peek()
        if char in ";{}":
            parser.position += 1
            if char == "{":
                self.scopes.append({})
            elif char == "}":
                self.scopes.pop()
            return
        line = parser.line()
        if match := parser.accept(_LABEL):
            self.label(match.group(1), line)
            return
        text = parser.until(";").strip()
        parser.position += 1
        if text.startswith("."):
            self.directive(text, line)
        else:
            self.pending.append(_PendingInstruction(text, line, list(self.scopes)))

    def label(self, name: str, line: int) -> None:
        unique = self.declare(name)
        self.labels.add(unique)
        self.parser.skip_space()
        if match := self.parser.accept(_BRANCH_TARGETS):
            labels = [label.strip() for label in match.group(1).split(",")]
            self.pending_targets[unique] = _PendingTargets(labels, list(self.scopes))
        elif not self.parser.accept(_CALL_PROTOTYPE):
            self.pending.append(Label(unique, line))

    def directive(self, text: str, line: int) -> None:
        if match := _REGISTERS.match(text):
            for declarator in split_top(match.group(2)):
                numbered = _REGISTER_RANGE.match(declarator)
                names = [declarator]
                if numbered:
                    names = [f"{numbered.group(1)}{number}" for number in range(int(numbered.group(2)))]
                for name in names:
                    self.function.registers[self.declare(name)] = match.group(1)
        elif not text.startswith((".pragma", ".maxn", ".callprototype")):
            variables = self.parser.variables(text)
            if variables is None:
                raise PtxError(f"line {line}: unknown directive {text[:60]!r}")
            for variable in variables:
                variable.name = self.declare(variable.name)
                self.function.variables[variable.name] = variable

    def instruction(self, pending: _PendingInstruction) -> Instr:
        def unique(name: str) -> str:
            return _resolve(name, pending.scopes)

        text, guard = pending.text, None
        if match := _GUARD.match(text):
            guard = Guard(unique(match.group(2)), negated=bool(match.group(1)))
            text = match.group(3)
        match = _OPCODE.match(text)
        if not match:
            raise PtxError(f"line {pending.line}: cannot parse {text!r}")
        try:
            args = [map_names(parse_operand(item), unique) for item in split_top(match.group(2))]
        except PtxError as error:
            raise PtxError(f"line {pending.line}: {error} in {text!r}") from error
        return Instr(match.group(1), args, pending.line, guard, re.sub(r"\s+", " ", pending.text))
