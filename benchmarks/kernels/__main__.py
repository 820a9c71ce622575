"""``make kernels``: count what the GPU kernels cost, print it, write docs/budgets.md and a results file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.kernels import document, measure, report
from benchmarks.kernels.budgets import Finding
from benchmarks.kernels.facts import Library
from benchmarks.kernels.measure import Measured
from benchmarks.kernels.report import Sheet

app = typer.Typer(add_completion=False)
#: Convolutions and uses that Triton's kernels are shown in: each is compiled twice, in about half a minute.
TRITON_LAYERS, TRITON_USES = "layer[12].*", ["infer"]
console = Console() if sys.stdout.isatty() else Console(width=220)


def measured(library: Library, layers: str, whole: bool) -> tuple[dict[str, Sheet], list[Finding], Measured]:
    """The library's tables by the names of their marks, every budget, and the convolutions."""
    with console.status("each convolution, executed"):
        convolutions = measure.convolutions(library, layers)
    sheets, found = {"kernels": report.kernels(convolutions)}, measure.findings_of(convolutions)
    if whole:
        with console.status("whole networks: one and two images executed, 256 listed"):
            networks = measure.networks(library)
        sheets["networks"] = report.networks(networks)
        sheets |= {network.way.key: report.launch_table(network) for network in networks}
        found += measure.findings_of_networks(networks)
    sheets["missed"] = report.missed(found)
    return sheets, found, convolutions


def by_triton(library: Library, pattern: str, uses: Sequence[str], convolutions: Measured) -> Sheet:
    """Triton's kernels beside the library's, which are counted here where ``convolutions`` are none."""
    with console.status("the same by Triton"):
        theirs = measure.convolutions(library, pattern, uses, "triton")
    if not convolutions:
        with console.status("the library's beside them"):
            convolutions = measure.convolutions(library, pattern, uses)
    names = {str(case) for case, _ in theirs}
    return report.side_by_side([*(pair for pair in convolutions if str(pair[0]) in names), *theirs])


@app.command(help=__doc__)
def main(
    layers: Annotated[
        str, typer.Option(help="A glob of convolutions as benchmarks/shapes.py names them.")
    ] = "*",
    triton: Annotated[
        str, typer.Option(help="Those shown by Triton's kernels too; empty: none.")
    ] = TRITON_LAYERS,
    triton_use: Annotated[list[str], typer.Option(help="Globs of the uses shown by Triton's.")] = TRITON_USES,
    networks: Annotated[bool, typer.Option(help="Whole ResNet-50s as well.")] = True,
    only_triton: Annotated[bool, typer.Option(help="Count that table alone, and keep the others.")] = False,
) -> None:
    library = Library()
    sheets: dict[str, Sheet] = {}
    found: list[Finding] = []
    convolutions: Measured = []
    if not only_triton:
        sheets, found, convolutions = measured(library, layers, networks)
    if triton:
        counted = by_triton(library, triton, triton_use, convolutions)
        sheets["triton"] = document.with_others("triton", counted)
    for sheet in sheets.values():
        console.print(sheet.rich())
    if triton and only_triton:
        document.replace(sheets)
    elif networks and triton and layers == "*":  # of a part the file and the page would lack the rest
        document.save(sheets, found)
    else:
        return
    document.write(sheets)
    console.print(f"{document.RESULTS}\n{document.DOCUMENT}")


if __name__ == "__main__":
    app()
