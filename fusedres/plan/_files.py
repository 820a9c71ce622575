"""``load`` and ``save``: the plan in force and files, the cache's or a user's own."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import torch

from fusedres.plan import _store
from fusedres.plan._lookup import in_force, put_in_force
from fusedres.plan._plan import Plan, empty


def load(path: str | os.PathLike[str] | None = None, *, device: torch.device | str | None = None) -> Plan:
    """Have the plan in a file hold on ``device`` from now on, in place of what held before.

    A plan in the cache folder is loaded without this, by the first block that asks.

    Args:
        path: a file that :func:`save` wrote; ``None``: this device's in the cache folder, where one that is
            missing counts as empty, and so does a broken one, with a warning.
        device: a torch device; ``None``: the current GPU where there is one, else the CPU.

    Raises:
        OSError: ``path`` cannot be read.
        ValueError: ``path`` holds no plan, or one for another device, torch or fusedres; or ``device`` names
            none.
        TypeError: ``path`` is no path, or ``device`` no device.
    """
    like = empty(device_of("plan.load", device))
    check_path("plan.load", path)
    if path is None:
        cached = _store.path_of(like)
        plan = like if cached is None else _store.read_or_report(cached, like)
    else:
        plan = _read_own("plan.load", Path(path), like)
    put_in_force(plan)
    return plan


def save(path: str | os.PathLike[str] | None = None, *, device: torch.device | str | None = None) -> Path:
    """Write the plan that holds on ``device`` to a file, merged into what the file holds already.

    :func:`fusedres.tune` does it for the cache folder.

    Args:
        path: the file; ``None``: this device's in the cache folder.
        device: as in :func:`load`.

    Raises:
        OSError: the file cannot be written.
        ValueError: no ``path``, and ``FUSEDRES_PLANS=0``; ``path`` holds no plan, or one for another device,
            torch or fusedres, and stays as it is (in the cache folder it is replaced, with a warning); or
            ``device`` names none.
        TypeError: as in :func:`load`.
    """
    plan = in_force(device_of("plan.save", device))
    check_path("plan.save", path)
    if path is not None:
        own = Path(path)
        _store.write(own, plan, partial(_read_own, "plan.save"))
        return own
    cached = _store.path_of(plan)
    if cached is None:
        raise ValueError("plan.save: `path` must be given where FUSEDRES_PLANS is 0; got None")
    _store.write(cached, plan)
    return cached


def check_path(name: str, path: object) -> None:
    if path is not None and not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"{name}: `path` must be a path; got {path!r}")


def device_of(name: str, device: torch.device | str | None) -> torch.device:
    """A device as a user names one; of GPUs without a number the current one."""
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if not isinstance(device, (torch.device, str)):
        raise TypeError(f"{name}: `device` must be a torch.device or a string; got {device!r}")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{name}: `device` must be a torch device; got {device!r} ({reason})") from None
    if chosen.type == "cuda" and chosen.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return chosen


def _read_own(name: str, path: Path, like: Plan) -> Plan:
    """The plan in a user's file, which must be one for ``like``'s device and versions."""
    plan = _store.read(path)
    if plan.origin != like.origin:
        raise ValueError(
            f"{name}: `path` must hold a plan for {', '.join(like.origin)} (device, torch, fusedres); "
            f"{path} holds one for {', '.join(plan.origin)}"
        )
    return plan
