"""The cache: where it is, and that several processes may build at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from ptxemu import cache

BUILDER = """
import os, sys, time
from ptxemu import cache
target = cache.cache_dir() / "entry"
with cache.lock("entry"):
    if not target.exists():
        with cache.new_folder(target) as scratch:
            (scratch / "builder").write_text(str(os.getpid()))
            time.sleep(0.2)
print((target / "builder").read_text())
"""


def test_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PTXEMU_CACHE", str(tmp_path / "own"))
    assert cache.cache_dir() == (tmp_path / "own").resolve()
    monkeypatch.delenv("PTXEMU_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.cache_dir() == (tmp_path / "ptxemu").resolve()


def test_processes_build_an_entry_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PTXEMU_CACHE", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(Path(cache.__file__).parent.parent))
    command = [sys.executable, "-c", BUILDER]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    builders = {process.communicate()[0] for process in processes}
    assert len(builders) == 1 and {process.returncode for process in processes} == {0}
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["entry"]


def test_failed_build_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PTXEMU_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match="stop"), cache.new_folder(tmp_path / "entry") as scratch:
        (scratch / "half").write_text("done")
        raise ValueError("stop")
    assert list(tmp_path.iterdir()) == []


def test_digest_knows_boundaries() -> None:
    assert cache.digest("ab", "c") != cache.digest("a", "bc") and cache.digest("a") == cache.digest(b"a")


def test_write_whole_replaces(tmp_path: Path) -> None:
    for text in ("first", "second"):
        cache.write_whole(tmp_path / "file", text)
    assert (tmp_path / "file").read_text() == "second" and len(list(tmp_path.iterdir())) == 1
