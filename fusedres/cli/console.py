"""The two consoles, and how a user's mistake ends a command."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import torch
import typer
from rich.console import Console
from rich.text import Text

from fusedres.ops._dispatch import BackendRefusal


class UserError(Exception):
    """Something the user can put right: bad input, or a package that is not installed."""


def out() -> Console:
    """A console on the present stdout (looked up at each call, so that redirection is seen)."""
    return Console()


def warn(message: str) -> None:
    """One line on stderr that does not stop the command."""
    Console(stderr=True).print(
        Text("warning: ", style="yellow").append(message, style="default"), soft_wrap=True
    )


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn a :class:`UserError` into one line on stderr and exit code 2."""
    try:
        yield
    except UserError as error:
        message = Text("error: ", style="bold red").append(str(error), style="default")
        Console(stderr=True).print(message, soft_wrap=True)
        raise typer.Exit(2) from error


@contextmanager
def refusals() -> Iterator[None]:
    """Around a model's first run: what the model or its back-end refuses is the user's to put right."""
    try:
        yield
    except (ValueError, BackendRefusal) as error:
        raise UserError(f"the model cannot run: {error}") from error


def require(module: str, purpose: str) -> ModuleType:
    """Import a package of the ``demo`` extra, or say how to get it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise UserError(f"{purpose} needs {module.split('.')[0]}: pip install 'fusedres[demo]'") from error


def pick_device(name: str) -> torch.device:
    """``auto`` is the GPU where there is one; anything else is torch's own spelling.

    Raises:
        UserError: not a device, or one that is not here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"--device must be auto, cpu, cuda or cuda:N; got {name!r}") from error
    if device.type not in {"cpu", "cuda"}:
        raise UserError(f"--device must be auto, cpu, cuda or cuda:N; got {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"--device must be present; got {name!r}, and torch sees {torch.cuda.device_count()} GPUs"
        )
    return device


def check_choice(option: str, value: str, choices: tuple[str, ...]) -> str:
    """``value`` if it is among ``choices``; else a :class:`UserError` that lists them."""
    if value not in choices:
        raise UserError(f"{option} must be one of {', '.join(choices)}; got {value!r}")
    return value
