"""What a tuning chose, and what a model runs: rows, and the same as a table."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fusedres.ops._planned import Choice
from fusedres.plan._block import Block
from fusedres.plan._candidates import PLAIN, label

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


@dataclass
class Outcome:
    """What was found for one distinct block; ``choice`` is ``None`` where the default rules are left to it.

    ``layers`` are the names of the modules that it stands for; a stem's is its model's. ``seconds`` are the
    candidates' medians.
    """

    block: Block
    choice: Choice | None = None
    why: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    layers: list[str] = field(default_factory=list)

    @property
    def runs(self) -> str:
        return "by the default rules" if self.choice is None else label(self.choice)

    @property
    def speed(self) -> str:
        """Milliseconds of the plain path and of what was chosen, where both were timed."""
        plain, chosen = self.seconds.get(PLAIN), self.seconds.get(self.runs)
        if plain is None:
            return "–"
        return f"{plain * 1e3:.2f}" if chosen is None else f"{plain * 1e3:.2f} → {chosen * 1e3:.2f}"


@dataclass
class Report:
    """What :func:`fusedres.tune` found; ``stored`` says in which file, or why in none."""

    outcomes: list[Outcome]
    stored: str

    def show(self, console: Console | None = None) -> None:
        """Print the table, on stderr unless another console is given."""
        from rich.console import Console

        console = console or Console(stderr=True)
        console.print(self._table())
        console.print(f"plan stored {self.stored}", markup=False, highlight=False, soft_wrap=True)

    def __str__(self) -> str:
        return as_text(self._table()) + f"plan stored {self.stored}"

    def _table(self) -> Table:
        rows = [
            (names(o.block, o.layers), describe(o.block), o.runs, o.speed, o.why or "–")
            for o in self.outcomes
        ]
        return table(("layers", "block", "runs", "ms: plain → chosen", "why"), rows)


def names(block: Block, layers: list[str]) -> str:
    """The modules a block stands for; of a stem, its first and last."""
    if block.kind == "stem":
        layers = [f"{name}.conv1 … maxpool".lstrip(".") for name in layers]
    return ", ".join(dict.fromkeys(layers))


def describe(block: Block) -> str:
    """The kind, the input and what tells it apart from its like, short enough for a table."""
    size = "x".join(map(str, block.x))
    filters = block.layers[len(block.layers) - 1 - block.skip][0]
    stride = max(layer[4] for layer in block.layers)
    groups = max(layer[10] for layer in block.layers)
    words = [f"{block.kind} {size} → {filters}"]
    words += [f"stride {stride}"] if stride != 1 else []
    words += [f"groups {groups}"] if groups != 1 else []
    return ", ".join([*words, block.mode, block.dtype])


def table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]], title: str | None = None) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    made = Table(title=title, title_style="bold", title_justify="left", box=SIMPLE_HEAD)
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*map(Text, row))
    return made


def as_text(made: Table) -> str:
    from rich.console import Console

    file = io.StringIO()
    Console(file=file, width=200).print(made)
    return file.getvalue()
