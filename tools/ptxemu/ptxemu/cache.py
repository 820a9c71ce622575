"""The build cache: what was compiled stays on disk, and several processes may build at once.

Files appear whole (written under another name, then renamed), their names hold a hash of all they depend
on, and a lock keeps two processes from building the same thing twice.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


def cache_dir() -> Path:
    """PTXEMU_CACHE, else ptxemu in the user's cache folder; created on first use."""
    configured = os.environ.get("PTXEMU_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(configured) if configured else base / "ptxemu"
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()


def digest(*parts: str | bytes) -> str:
    """A short hash of the parts and their boundaries."""
    state = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else part.encode()
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.hexdigest()[:20]


@contextlib.contextmanager
def lock(name: str) -> Iterator[None]:
    """Hold the lock of one cache entry; the system frees it when the process dies."""
    with (cache_dir() / f".{name}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def write_whole(path: Path, text: str) -> None:
    """Write a file so that no reader ever sees a part of it."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as handle:
        handle.write(text)
    os.replace(handle.name, path)


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A scratch folder that becomes `target` when the block ends well, and vanishes when it does not.

    Where another process was faster, its folder stays and ours is dropped.
    """
    scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        yield scratch
        with contextlib.suppress(OSError):  # the target exists and is not empty
            scratch.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
