"""``fusedres info``: what is installed, what it can run on, and how it was built."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from fusedres import plan
from fusedres._build import build_info
from fusedres._settings import BACKEND
from fusedres.cli.console import UserError, out, pick_device, user_errors
from fusedres.cli.environment import VARIABLES
from fusedres.cli.machine import device_name, versions
from fusedres.cli.tune import PRECISION_HELP, at_precision, cpu_threads, subject
from fusedres.ops._dispatch import BACKENDS

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp64": torch.float64}


def info(
    context: typer.Context,
    model: Annotated[
        str | None, typer.Option(help="Also what each layer of this model runs, and why.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images a batch.")] = 16,
    dtype: Annotated[str, typer.Option(help="fp32 or bf16 (in training: autocast).")] = "fp32",
    train: Annotated[bool, typer.Option("--train", help="The training step in place of inference.")] = False,
    size: Annotated[int, typer.Option(min=32, help="Side of an image.")] = 224,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads (default: torch's)")] = None,
    precision: Annotated[str | None, typer.Option(help=PRECISION_HELP)] = None,
) -> None:
    """Show versions, devices, back-ends, build flags and environment variables, and what a model runs."""
    console = out()
    if model is None:
        with user_errors():
            _check_no_option(context)
    if model is not None:
        with user_errors(), cpu_threads(threads), at_precision(precision):
            chosen = subject(model, batch, dtype, train, size, pick_device(device))
            with chosen.as_it_runs():
                explanation = plan.explain(chosen.model, chosen.images, train=train)
    _print(console, "versions", ("package", "version"), list(versions().items()))
    _print(console, "devices", ("device", "name"), devices())
    _print(console, "back-ends", ("back-end", "available", *(str(d) for d in device_types())), backends())
    build = [(name, _spelled(value)) for name, value in build_info().items()]
    _print(console, "build", ("fact", "value"), build)
    _print(console, "environment", ("variable", "now", "read at", "values", "meaning"), environment())
    if model is not None:
        console.print(explanation.table(f"layers of {model}"))


def _check_no_option(context: typer.Context) -> None:
    """Every option but ``--model`` is about it."""
    given = [name for name in context.params if _given(context, name)]
    if given:
        raise UserError(f"{', '.join(f'--{name}' for name in given)} must come with --model; got no --model")


def _given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def devices() -> list[tuple[str, str]]:
    """Each device and its name."""
    capability = torch.backends.cpu.get_cpu_capability()
    cpu = f"{device_name(torch.device('cpu'))}, {torch.get_num_threads()} threads, {capability}"
    found = [("cpu", cpu)]
    if not torch.cuda.is_available():
        reason = (
            "torch has no CUDA"
            if torch.version.cuda is None
            else f"no GPU seen (torch has CUDA {torch.version.cuda})"
        )
        return [*found, ("cuda", reason)]
    for index in range(torch.cuda.device_count()):
        major, minor = torch.cuda.get_device_capability(index)
        found.append(
            (f"cuda:{index}", f"{torch.cuda.get_device_name(index)}, compute capability {major}.{minor}")
        )
    return found


def device_types() -> list[torch.device]:
    """The CPU, and the first GPU where there is one."""
    return [torch.device("cpu"), *([torch.device("cuda")] if torch.cuda.is_available() else [])]


def backends() -> list[tuple[str, ...]]:
    """Each back-end: whether it can run at all or why not, and the dtypes that it takes on each device."""
    table: list[tuple[str, ...]] = []
    for name in BACKEND.choices[1:]:  # all but "auto"
        backend = BACKENDS.get(name)
        reason = backend.unavailable() if backend else "not part of this build"
        served = []
        for device in device_types():
            names = [d for d, dtype in DTYPES.items() if backend and backend.refusal(device, dtype) is None]
            served.append(", ".join(names) or "–")
        table.append((name, f"no: {reason}" if reason else "yes", *served))
    return table


def environment() -> list[tuple[str, ...]]:
    """Each variable that is read, with its present value."""
    return [(v.name, os.environ.get(v.name, "–"), v.read, v.values, v.meaning) for v in VARIABLES]


def _print(console: Console, title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    table = Table(title=title, title_style="bold", title_justify="left", show_lines=False)
    for index, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=index == 0)  # a name that is cut cannot be searched
    for row in rows:
        table.add_row(*row)
    console.print(table, markup=False)


def _spelled(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value)) or "–"
    if isinstance(value, dict):
        return "\n".join(f"{key}: {_spelled(entry)}" for key, entry in value.items()) or "–"
    return str(value)
