"""What every block of a model runs, and why: measured, or by which default rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from fusedres._heuristic import rule_for
from fusedres.ops._dispatch import BACKENDS, COMPOSITIONS, resolve_backend
from fusedres.ops._planned import CONVOLUTIONS, Choice, Convolution, convolutions_seen
from fusedres.ops._registry import backends_of
from fusedres.plan._block import Block
from fusedres.plan._candidates import PLAIN, label
from fusedres.plan._capture import capture, check_model, inputs_of, mode_of
from fusedres.plan._lookup import in_force, planned
from fusedres.plan._plan import Plan
from fusedres.plan._record import Seen
from fusedres.plan._report import as_text, describe, names, table
from fusedres.plan._sample import Sample

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Row:
    """What one distinct block runs. ``convolutions`` are (which, algorithm, why) where there are several."""

    layers: list[str]
    block: Block
    runs: str
    why: str
    convolutions: list[tuple[str, str, str]]


@dataclass(frozen=True)
class Explanation:
    """A row for each distinct block of a model; ``print`` shows a table."""

    rows: list[Row]

    def table(self, title: str | None = None) -> Table:
        lines: list[tuple[str, ...]] = []
        for row in self.rows:
            lines.append((names(row.block, row.layers), describe(row.block), row.runs, row.why))
            lines += [("", f"  {which}", algorithm, why) for which, algorithm, why in row.convolutions]
        return table(("layers", "block", "runs", "why"), lines, title)

    def __str__(self) -> str:
        return as_text(self.table())


def explain(
    model: nn.Module, example_inputs: Tensor | Sequence[Any], *, train: bool | None = None
) -> Explanation:
    """What each distinct block of ``model`` runs on inputs like these, and why.

    Args:
        model, example_inputs, train: as :func:`fusedres.tune` takes them.

    Raises:
        TypeError, ValueError: as there.
    """
    inputs = inputs_of("plan.explain", example_inputs)
    check_model("plan.explain", model)
    module_names = {id(module): name for name, module in model.named_modules()}
    with mode_of("plan.explain", model, train):
        recorder = capture("plan.explain", model, inputs)
        return Explanation(
            [
                _row([module_names.get(id(m), "") for m in recorder.modules[key]], seen)
                for key, seen in recorder.seen.items()
            ]
        )


def _row(layers: list[str], seen: Seen) -> Row:
    block, device = seen.block, seen.x.device
    plan = in_force(device)
    choice = planned(block, device)
    if choice.composition == PLAIN:
        return Row(layers, block, "torchvision's own forward", plan.blocks[str(block)].why, [])
    backend = resolve_backend(seen.x, None, choice)
    composition, why = choice.composition, None
    if choice != Choice():
        why = plan.blocks[str(block)].why
    if composition == "auto" and block.mode == "train":
        first = backends_of(backend)[0]
        composition = COMPOSITIONS[first]
        why = why or f"by rule: {rule_for('composition', {'backend': first}).why}"
    why = why or "by rule: fused, on the first back-end that serves"
    return Row(layers, block, label(Choice(composition, backend)), why, _convolutions(seen, choice, plan))


def _convolutions(seen: Seen, choice: Choice, plan: Plan) -> list[tuple[str, str, str]]:
    with convolutions_seen() as found:
        Sample(seen, dict(CONVOLUTIONS)).call(choice)()
    lines = []
    for convolution, algorithm in found.items():
        measured = plan.convolutions.get(convolution)
        rule = BACKENDS[convolution.backend].rule
        why = measured.why if measured else f"by rule: {rule(convolution)[1] if rule else '–'}"
        lines.append((_which(convolution), algorithm, why))
    return lines


def _which(convolution: Convolution) -> str:
    k, c, r, s = convolution.w
    stride = f" stride {convolution.stride[0]}" if max(convolution.stride) > 1 else ""
    use = "" if convolution.use == "infer" else f"{convolution.use} "
    return f"{use}{r}x{s} {c} → {k}{stride} on {convolution.x[2]}x{convolution.x[3]}"
