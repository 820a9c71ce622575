"""The typer application; each command is a module of its own."""

from __future__ import annotations

from typing import Annotated

import typer

from fusedres._version import __version__
from fusedres.cli.classify import classify
from fusedres.cli.compare import compare
from fusedres.cli.console import user_errors
from fusedres.cli.environment import check_environment
from fusedres.cli.info import info
from fusedres.cli.tune import tune

app = typer.Typer(
    name="fusedres",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def show_version(wanted: bool) -> None:
    """``--version``: fusedres's version, and nothing else."""
    if wanted:
        typer.echo(f"fusedres {__version__}")
        raise typer.Exit


@app.callback()
def fusedres(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """ResNets with fewer, larger kernels: what is installed, how it compares, what is fastest here."""
    with user_errors():
        check_environment()


app.command()(info)
app.command()(compare)
app.command()(classify)
app.command()(tune)
