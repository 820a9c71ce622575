"""``fusedres info``: what is installed, what it can run on, and how it was built."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from rich.console import Console
from rich.table import Table

from fusedres._build import build_info
from fusedres._settings import BACKEND
from fusedres.cli.console import out
from fusedres.cli.environment import VARIABLES
from fusedres.cli.machine import device_name, versions
from fusedres.ops._dispatch import BACKENDS

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp64": torch.float64}


def info() -> None:
    """Show versions, devices, back-ends, build flags and environment variables."""
    console = out()
    _print(console, "versions", ("package", "version"), list(versions().items()))
    _print(console, "devices", ("device", "name"), devices())
    _print(console, "back-ends", ("back-end", "available", *(str(d) for d in device_types())), backends())
    build = [(name, _spelled(value)) for name, value in build_info().items()]
    _print(console, "build", ("fact", "value"), build)
    _print(console, "environment", ("variable", "now", "read at", "values", "meaning"), environment())


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
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table, markup=False)


def _spelled(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value)) or "–"
    if isinstance(value, dict):
        return "\n".join(f"{key}: {_spelled(entry)}" for key, entry in value.items()) or "–"
    return str(value)
