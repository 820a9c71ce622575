"""The tables of `make kernels`: printed with rich, and the same as Markdown for docs/budgets.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rich.table import Table

from benchmarks.kernels.budgets import IMAGES, Finding, findings
from benchmarks.kernels.chips import CHIPS, Chip
from benchmarks.kernels.exceptions import reason_for
from benchmarks.kernels.facts import Facts
from benchmarks.kernels.layers import Case
from benchmarks.kernels.network import PLAIN_GIGABYTES, Network, touches_activation
from benchmarks.kernels.scaling import name_of


class Sheet(NamedTuple):
    """A table: its title, its columns, and its rows as they are printed."""

    title: str
    columns: Sequence[str]
    rows: list[list[str]]

    def rich(self) -> Table:
        table = Table(title=self.title, title_justify="left")
        for i, column in enumerate(self.columns):
            table.add_column(column, justify="left" if i == 0 else "right")
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def kernels(cases: Sequence[tuple[Case, Facts]]) -> Sheet:
    """One row a convolution and use and back-end."""
    columns = [
        "convolution", "use", "by", "registers", "shared KB", "spilled", "SASS / HMMA", "mma / ideal",
        "DRAM / must", "sectors used", "waves a matrix", *(f"{chip.name}: limit, next" for chip in CHIPS),
    ]  # fmt: skip
    rows = []
    for case, facts in cases:
        found = {f.budget: f.value for f in findings([case])}
        products = found.get("matrix instructions / padded ideal")
        sectors = min(v for budget, v in found.items() if budget.startswith("sectors"))
        rows.append(
            [
                case.layer.name, case.use, case.backend, str(facts.registers),
                f"{facts.shared / 1024:.0f}", str(facts.spilled), _ratio(facts.instructions),
                _ratio(products), _ratio(found["DRAM bytes / must move"]),
                f"{sectors:.0%}", _ratio(found.get("wavefronts a matrix")),
                *(_limit(case, chip) for chip in CHIPS),
            ]
        )  # fmt: skip
    return Sheet(f"Convolutions of ResNet-50, bf16; the limit at batch {IMAGES}", columns, rows)


def side_by_side(cases: Sequence[tuple[Case, Facts]]) -> Sheet:
    """The library's kernels and Triton's for the same convolutions, one under the other."""
    ordered = sorted(cases, key=lambda pair: (pair[0].layer.name, pair[0].use, pair[0].backend))
    sheet = kernels(ordered)
    for (case, _), row in zip(ordered, sheet.rows, strict=True):
        c = case.counters
        waves = sum(c[f"{kind}_wavefronts"] for kind in ("ld_shared", "st_shared", "ldmatrix"))
        row += [str(c["mma"]), f"{waves / c['mma']:.2f}"]
    title = "The same convolutions by the CUDA library and by Triton"
    return Sheet(title, [*sheet.columns, "matrix instructions", "bank passes / mma"], sheet.rows)


def _limit(case: Case, chip: Chip) -> str:
    busy = case.times(chip, IMAGES)
    other, share = busy.worst_other
    return f"{busy.limit}; {other} {share:.0%}"


def networks(found: Sequence[Network]) -> Sheet:
    """One row a way to run the network, with its budgets."""
    columns = [
        "ResNet-50, batch 256, bf16", "GB", "at most", "roofline", "plain", "launches", "at most",
        "on activations", "at most", *(f"{chip.name}: ms at least" for chip in CHIPS),
    ]  # fmt: skip
    rows = []
    for network in found:
        way = network.way
        rows.append(
            [
                way.name, f"{network.gigabytes:.1f}", f"{way.most_gigabytes:.1f}", f"{way.roofline:.1f}",
                f"{PLAIN_GIGABYTES[way.arguments[0]]:.1f}", str(len(network.launches)),
                str(way.most_launches or ""), str(network.on_activations), str(way.most_on_activations or ""),
                *(f"{1e3 * network.seconds(chip):.1f}" for chip in CHIPS),
            ]
        )  # fmt: skip
    return Sheet("Whole networks", columns, rows)


def launch_table(network: Network) -> Sheet:
    """Launches by op and kernel: how many, their bytes, and what limits them on each chip."""
    counts = Counter((launch.op, name_of(launch.kernel)) for launch in network.launches)
    rows = []
    for (op, kernel), count in counts.items():
        chosen = [x for x in network.launches if (x.op, name_of(x.kernel)) == (op, kernel)]
        moved = sum(launch.dram for launch in chosen)
        touches = "yes" if touches_activation(kernel) else ""
        rows.append([op, kernel, str(count), touches, f"{moved / 1e9:.2f}"])
    for op, (count, moved) in network.aten.items():
        rows.append([op, "torch's", str(count), "", f"{moved / 1e9:.2f}"])
    rows.append(["all of ours", "", str(len(network.launches)), str(network.on_activations),
                 f"{network.gigabytes:.2f}"])  # fmt: skip
    return Sheet(network.way.name, ["op", "kernel", "launches", "touches an activation", "GB"], rows)


def missed(found: Iterable[Finding]) -> Sheet:
    """Every budget that is missed: the worst number, how many cases, why."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in found:
        if not finding.met:
            reason = reason_for(finding) or "not explained"
            groups.setdefault((finding.budget, reason), []).append(finding)
    rows = []
    for (budget, reason), members in groups.items():
        worst = (min if members[0].least else max)(members, key=lambda f: f.value)
        where = worst.case if len(members) == 1 else f"{worst.case} and {len(members) - 1} more"
        bound = "at least" if worst.least else "at most"
        rows.append([budget, f"{bound} {worst.limit:g}", f"{worst.value:.4g}", where, reason])
    return Sheet("Missed budgets", ["what", "budget", "worst", "where", "why"], rows)
