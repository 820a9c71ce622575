"""``make kernels``: count what the GPU kernels cost, print it, write docs/budgets.md and a results file."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.kernels import document, measure, report
from benchmarks.kernels.budgets import Finding
from benchmarks.kernels.facts import Library
from benchmarks.kernels.report import Sheet

app = typer.Typer(add_completion=False)
console = Console() if sys.stdout.isatty() else Console(width=220)


def measured(layers: str, triton: str, whole: bool) -> tuple[dict[str, Sheet], list[Finding]]:
    """The tables by the names of their marks, and every budget."""
    library = Library()
    with console.status("each convolution, executed"):
        convolutions = measure.convolutions(library, layers)
    sheets, found = {"kernels": report.kernels(convolutions)}, measure.findings_of(convolutions)
    if triton:
        with console.status("the same by Triton"):
            by_triton = measure.triton_convolutions(library, triton)
        theirs = {(case.layer, case.use) for case, _ in by_triton}
        beside = [pair for pair in convolutions if (pair[0].layer, pair[0].use) in theirs]
        sheets["triton"] = report.side_by_side([*beside, *by_triton])
    if whole:
        with console.status("whole networks: one and two images executed, 256 listed"):
            networks = measure.networks(library)
        sheets["networks"] = report.networks(networks)
        sheets |= {network.way.key: report.launch_table(network) for network in networks}
        found += measure.findings_of_networks(networks)
    sheets["missed"] = report.missed(found)
    return sheets, found


@app.command(help=__doc__)
def main(
    layers: Annotated[
        str, typer.Option(help="A glob of convolutions as benchmarks/shapes.py names them.")
    ] = "*",
    triton: Annotated[
        str, typer.Option(help="Those shown by Triton's kernels too; empty: none.")
    ] = "layer2.1.conv1",
    networks: Annotated[bool, typer.Option(help="Whole ResNet-50s as well.")] = True,
) -> None:
    sheets, found = measured(layers, triton, networks)
    for sheet in sheets.values():
        console.print(sheet.rich())
    if networks and triton and layers == "*":  # of a part the file and the page would lack the rest
        document.save(sheets, found)
        document.write(sheets)
        console.print(f"{document.RESULTS}\n{document.DOCUMENT}")


if __name__ == "__main__":
    app()
