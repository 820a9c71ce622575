"""Plans on disk: one JSON file a device, torch and fusedres, in the user's cache folder.

A file is replaced in one step, so a reader sees the old one or the new one; a writer first takes in what is
there, under a lock, so that two processes that tune at once keep what both measured.
"""

from __future__ import annotations

import os
import re
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from fusedres._user_cache import user_cache
from fusedres.plan._plan import Plan, from_json

#: Seconds to wait for another process that writes: it takes milliseconds, unless it was stopped.
LOCK_TIMEOUT = 120.0


def folder() -> Path | None:
    """Where plans are kept; ``None`` where ``FUSEDRES_PLANS=0`` says nowhere."""
    chosen = os.environ.get("FUSEDRES_PLANS")
    if chosen:
        return None if chosen == "0" else Path(chosen)
    return user_cache() / "plans"


def path_of(plan: Plan) -> Path | None:
    """The file that keeps what is measured on a plan's device with its versions."""
    where = folder()
    if where is None:
        return None
    words = (*plan.origin[:1], f"torch {plan.torch}", f"fusedres {plan.fusedres}")
    return where / (
        "-".join(re.sub(r"[^a-z0-9.+]+", "-", word.lower()).strip("-") for word in words) + ".json"
    )


def read(path: Path) -> Plan:
    """The plan in a file.

    Raises:
        OSError: it cannot be read.
        ValueError: it holds no plan.
    """
    try:
        return from_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: must be a plan that fusedres wrote; {error}") from None


def read_or_report(path: Path, like: Plan) -> Plan:
    """The plan in a file of the cache. One that is missing, broken or not ``like``'s counts as empty;
    the latter two are reported as a warning."""
    try:
        plan = read(path)
        if plan.origin != like.origin:
            raise ValueError(f"{path}: must hold for {like.origin}; got {plan.origin}")
    except FileNotFoundError:
        return like
    except (OSError, ValueError) as error:
        warnings.warn(f"fusedres ignores a plan: {error}; tuning again replaces it", stacklevel=2)
        return like
    return plan


def write(path: Path, plan: Plan, reader: Callable[[Path, Plan], Plan] = read_or_report) -> Plan:
    """Merge ``plan`` into the file and return what stands there now.

    Args:
        reader: gives what the file holds from its path and an empty plan like ``plan``; what it raises stops
            the writing, but for a missing file.

    Raises:
        OSError: it cannot be written (``filelock.Timeout``, one too: another process holds the lock).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # added to the whole name, so that own.json never takes own.lock, which older filelocks would empty
    with FileLock(path.with_name(f"{path.name}.lock"), timeout=LOCK_TIMEOUT):
        nothing = Plan(*plan.origin)
        try:
            before = reader(path, nothing)
        except FileNotFoundError:
            before = nothing
        whole = before.merged(plan)
        _replace(path, whole.to_json() + "\n")
    return whole


def _replace(path: Path, text: str) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())  # else a crash may leave the new name on an empty file
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
