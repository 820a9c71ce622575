"""How a phase's work is cut for its threads (csrc/cpu/conv/pieces.h)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_every_thing_is_in_one_piece(tmp_path: Path) -> None:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++ found")
    program = tmp_path / "pieces"
    sanitized = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    source = str(Path(__file__).with_name("pieces_program.cpp"))
    command = [compiler, "-std=c++20", "-O1", *sanitized, "-Icsrc", source, "-o", str(program)]
    subprocess.run(command, cwd=ROOT, check=True)
    done = subprocess.run([str(program)], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "all held\n"), done.stdout[-2000:] + done.stderr
