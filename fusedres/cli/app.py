"""The typer application; each command is a module of its own."""

from __future__ import annotations

import typer

from fusedres.cli.classify import classify
from fusedres.cli.compare import compare
from fusedres.cli.info import info
from fusedres.cli.tune import tune

app = typer.Typer(
    name="fusedres",
    help="ResNets with fewer, larger kernels: what is installed, how it compares, what is fastest here.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(info)
app.command()(compare)
app.command()(classify)
app.command()(tune)
