"""One kernel as a flat list of instructions: every call inlined, guarded barriers turned into branches.

Pseudo instructions made here: ``__barres`` (the result of ``bar.red``), ``__clusterwait``, ``__vprintf`` and
``__assertfail``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..errors import PtxError
from ..ptx.model import (
    ArgumentList,
    Function,
    Guard,
    Instr,
    Label,
    Module,
    Name,
    Operand,
    Statement,
    map_names,
)

MAX_CALL_DEPTH = 20
HOST_FUNCTIONS = ("vprintf", "__assertfail")


def flatten(module: Module, kernel: Function) -> FlatKernel:
    """Inline everything that `kernel` calls.

    Raises:
        PtxError: recursion, indirect calls, calls of functions without a body.
    """
    flat = FlatKernel(module, kernel)
    flat.expand(kernel.body, {}, None, 0)
    return flat


class FlatKernel:
    """The flat `code` of a kernel, with the registers, variables and branch targets of all it inlines."""

    def __init__(self, module: Module, kernel: Function) -> None:
        self.module = module
        self.kernel = kernel
        self.registers = dict(kernel.registers)
        self.variables = dict(kernel.variables)
        self.branch_targets = dict(kernel.branch_targets)
        self.code: list[Statement] = []
        self._unique = 0

    def expand(
        self, body: list[Statement], renames: Mapping[str, str], return_label: str | None, depth: int
    ) -> None:
        """Append a function body; `return_label` is where its ``ret`` goes (None in the kernel itself)."""
        if depth > MAX_CALL_DEPTH:
            raise PtxError(f"{self.kernel.name}: recursive device functions are not supported")
        for statement in body:
            if isinstance(statement, Label):
                self.code.append(Label(renames.get(statement.name, statement.name), statement.line))
                continue
            instr = _rename(statement, renames) if renames else statement
            if instr.base == "ret" and return_label is not None:
                instr = Instr("bra", [Name(return_label)], instr.line, instr.guard, "ret")
            if instr.base == "call":
                self._inline(instr, depth)
            else:
                self._append(instr)

    def _append(self, instr: Instr) -> None:
        skip = None
        if instr.guard and instr.base in ("bar", "barrier", "brx") and not instr.op.startswith("bar.warp"):
            skip = self._new_name("$skip")
            self._branch(skip, instr, instr.guard.inverted())
            instr = instr.guarded_by(None)
        if instr.base in ("bar", "barrier") and instr.has("red"):
            result_type = "pred" if instr.type == "pred" else "u32"
            self.code.append(replace(instr, args=instr.args[1:]))
            self.code.append(Instr(f"__barres.{result_type}", [instr.args[0]], instr.line, None, instr.text))
        elif instr.op.startswith("barrier.cluster.wait"):
            label = self._new_name("$cw")
            self.code.append(Label(label, instr.line))
            self.code.append(Instr("__clusterwait", [Name(label)], instr.line, None, instr.text))
        else:
            self.code.append(instr)
        if skip:
            self.code.append(Label(skip, instr.line))

    def _branch(self, label: str, instr: Instr, guard: Guard) -> None:
        self.code.append(Instr("bra", [Name(label)], instr.line, guard, instr.text))

    def _new_name(self, stem: str) -> str:
        self._unique += 1
        return f"{stem}{self._unique}"

    def _inline(self, call: Instr, depth: int) -> None:
        callee_name, results, arguments = _call_operands(call)
        callee = self.module.functions.get(callee_name)
        if callee is None:
            raise PtxError(f"line {call.line}: indirect call or unknown function {callee_name}")
        if not callee.has_body:
            if callee_name not in HOST_FUNCTIONS:
                raise PtxError(f"line {call.line}: call of external function {callee_name} is not supported")
            host_call = Instr(
                f"__{callee_name.strip('_')}", [*results, *arguments], call.line, None, call.text
            )
            self.code.append(host_call.guarded_by(call.guard))
            return
        self._unique += 1
        suffix = f"$f{self._unique}"
        renames = self._callee_names(callee, suffix)
        formals, actuals = callee.params + callee.returns, arguments + results
        for formal, actual in zip(formals, actuals, strict=True):
            if formal.space == "reg":
                raise PtxError(f"line {call.line}: register parameters are not supported")
            assert isinstance(actual, Name)
            renames[formal.name] = actual.name
        end = f"$ret{self._unique}"
        if call.guard:
            self._branch(end, call, call.guard.inverted())
        self.expand(callee.body, renames, end, depth + 1)
        self.code.append(Label(end, call.line))

    def _callee_names(self, callee: Function, suffix: str) -> dict[str, str]:
        """Declare copies of the callee's registers, variables and labels; returns the renaming.

        Shared variables are static: all calls see the same one.
        """
        renames: dict[str, str] = {}
        for name, register_type in callee.registers.items():
            renames[name] = name + suffix
            self.registers[name + suffix] = register_type
        for name, variable in callee.variables.items():
            if variable.space == "shared":
                self.variables.setdefault(name, variable)
            else:
                renames[name] = name + suffix
                self.variables[name + suffix] = replace(variable, name=name + suffix)
        for statement in callee.body:
            if isinstance(statement, Label):
                renames[statement.name] = statement.name + suffix
        for name, labels in callee.branch_targets.items():
            renames[name] = name + suffix
            self.branch_targets[name + suffix] = [label + suffix for label in labels]
        return renames


def _call_operands(call: Instr) -> tuple[str, list[Operand], list[Operand]]:
    """Function name, result variables and argument variables of ``call (results), name, (arguments)``."""
    results: list[Operand] = []
    arguments: list[Operand] = []
    match call.args:
        case [ArgumentList(items), callee, *rest]:
            results = list(items)
        case [callee, *rest]:
            pass
    if rest and isinstance(rest[0], ArgumentList):
        arguments = list(rest[0].items)
    if not isinstance(callee, Name):
        raise PtxError(f"line {call.line}: cannot parse call {call.text!r}")
    return callee.name, results, arguments


def _rename(instr: Instr, renames: Mapping[str, str]) -> Instr:
    def rename(name: str) -> str:
        return renames.get(name, name)

    guard = Guard(rename(instr.guard.register), instr.guard.negated) if instr.guard else None
    return Instr(instr.op, [map_names(arg, rename) for arg in instr.args], instr.line, guard, instr.text)
