"""``python -m benchmarks``: measure whole models against their peers, and write what the README shows."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from benchmarks.models import machine, peers, results, suites
from benchmarks.models.table import console_tables

app = typer.Typer(add_completion=False)
console = Console() if sys.stdout.isatty() else Console(width=120)
README = machine.ROOT / "README.md"
PAGE = machine.ROOT / "docs" / "benchmarks.md"


def _split(values: list[str] | None) -> list[str]:
    return [name for value in values or [] for name in value.split(",") if name]


@app.callback(invoke_without_command=True, help=__doc__)
def main(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        run()


@app.command()
def run(
    cells: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Suites ({', '.join(suites.SUITES)}), globs such as 'infer-resnet101-*', or any cell's "
            "name; default: main."
        ),
    ] = None,
    peer: Annotated[
        list[str] | None,
        typer.Option(
            "--peers", help="Names of `list`; fusedres and eager always run; default: each suite's."
        ),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Interleaved rounds a cell; default: each suite's.")
    ] = None,
    threads: Annotated[
        list[int] | None, typer.Option(min=1, help="Repeat for several; default: all cores.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Results file; default: benchmarks/results/<device>.json.")
    ] = None,
    tune: Annotated[bool, typer.Option("--tune", help="Tune ours first (fusedres.tune).")] = False,
    write_report: Annotated[
        bool, typer.Option("--report/--no-report", help="Write the plot and the README.")
    ] = True,
) -> None:
    """Measure cells, put each into the results file as it is done, then write the report."""
    try:
        entries = suites.choose(_split(cells), threads or [machine.cores()])
        named_peers = _split(peer)
        peers.choose(named_peers)
        path = out or results.path_here()
        results.load(path)  # a file that cannot be merged into is found before minutes of measuring
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    from benchmarks.models.session import measure  # torch, which `--help` need not wait for

    began = time.monotonic()
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with (
        tempfile.TemporaryDirectory(prefix="fusedres-bench-") as folder,
        Progress(*columns, console=console) as progress,
    ):
        bar = progress.add_task("", total=len(entries))
        for entry in entries:
            cell = entry.cell
            entrants = peers.choose(named_peers or list(entry.peers))

            def say(words: str, name: str = str(cell)) -> None:
                progress.update(bar, description=f"[bold]{name}[/bold] {words}")
                if not console.is_terminal and not words.startswith("round"):
                    console.print(f"{time.monotonic() - began:6.0f} s  {name}: {words}", highlight=False)

            measured = measure(cell, entrants, rounds or entry.rounds, Path(folder), say, tune)
            results.add(path, str(cell), measured)
            progress.advance(bar)
    only = {str(entry.cell) for entry in entries}
    for table in console_tables(results.load(path), only):
        console.print(table)
    console.print(f"{path}, {time.monotonic() - began:.0f} s")
    if write_report:
        report(path if out else None)


@app.command()
def report(
    path: Annotated[
        Path | None, typer.Option("--results", help="One results file; default: all of them.")
    ] = None,
    readme: Annotated[Path, typer.Option(help="The README with the two marks.")] = README,
    page: Annotated[Path, typer.Option(help="The page of what the README leaves out.")] = PAGE,
) -> None:
    """Write the plots beside the results files, the README's tables, and the page of all others."""
    from benchmarks.models import page as page_of
    from benchmarks.models import readme as readme_of
    from benchmarks.models.plot import draw
    from benchmarks.models.report import headline
    from benchmarks.models.sweep_plot import draw_sweep

    files = [path] if path else sorted(results.FOLDER.glob("*.json"))
    try:
        sections, chapters = [], []
        for file in files:
            if not file.exists():
                raise ValueError(f"--results: {file} must exist; run `python -m benchmarks run` first")
            found = results.load(file)
            if headline(found, "infer", "train", "saved"):
                picture = file.with_suffix(".png")
                draw(found, picture)
                sections.append(readme_of.render(found, os.path.relpath(picture, readme.parent)))
                console.print(str(picture))
            curves = file.with_name(f"{file.stem}-sweep.png")
            drawn = draw_sweep(found, curves)
            chapters.append(page_of.render(found, os.path.relpath(curves, page.parent) if drawn else None))
        if not any((*sections, *chapters)):
            raise ValueError(f"no results in {results.FOLDER}; run `python -m benchmarks run` first")
        if not readme.exists():
            raise ValueError(f"--readme: {readme} must exist, with the marks of the report")
        if sections:  # without one of the README's cells it stays as it is
            readme_of.write_readme(readme, sections)
        page_of.write_page(page, chapters)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    console.print(f"{readme}, {page}")


@app.command("list")
def list_() -> None:
    """Suites, cells and peers by name, and which peers are not installed."""
    for suite in suites.SUITES:
        console.print(f"{suite}:")
        for entry in suites.choose([suite], [machine.cores()]):
            console.print(f"  {entry.cell}")
    for peer in peers.PEERS.values():
        console.print(
            f"{peer.name:12} {peer.label:24} {', '.join(peer.tasks):20} {peer.missing() or 'installed'}"
        )


if __name__ == "__main__":
    app()
