"""The engine without torch under AddressSanitizer and UBSan, and under ThreadSanitizer.

``engine_program.cpp`` runs every algorithm with its operands between forbidden pages, which also stop what no
sanitizer sees: assembly, masked vectors, AMX. Its threads are its own, so that ThreadSanitizer knows them.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from build_support.plan import CXX_FLAGS, ISA_FLAGS, STABLE_ABI, cpu_sources, isa_of

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent.relative_to(ROOT)

#: torch's half of the engine, and the scratch memory that the program has in guarded pages.
LEFT_OUT = {"conv_packed.cpp", "conv_wgrad.cpp", "memory.cpp"}
#: The extension's flags, at a level that keeps stacks readable.
FLAGS = (*(flag for flag in CXX_FLAGS if flag not in STABLE_ABI), "-O1", "-g1", "-Icsrc", "-pthread")

ISAS = ["portable", "avx2", "avx512"] if platform.machine() in ("x86_64", "AMD64") else ["portable"]


def sources() -> list[str]:
    """Baseline first, as the extension links them: see ``build_support.commands.BuildExt``."""
    program = [str(HERE / "engine_program.cpp"), "csrc/cpu/isa.cpp"]
    engine = [
        path
        for path in cpu_sources(ROOT, platform.machine())
        if path.startswith("csrc/cpu/conv/") and Path(path).name not in LEFT_OUT
    ]
    return program + engine


@pytest.fixture(scope="module", params=["address,undefined", "thread"])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++ found")
    folder = tmp_path_factory.mktemp("sanitized")
    flags = [*FLAGS, f"-fsanitize={request.param}", "-fno-sanitize-recover=all"]
    objects = []
    for source in sources():
        objects.append(str(folder / f"{Path(source).stem}.o"))
        isa = ISA_FLAGS.get(isa_of(source), ())
        subprocess.run([compiler, "-c", source, "-o", objects[-1], *flags, *isa], cwd=ROOT, check=True)
    built = folder / "engine_program"
    subprocess.run([compiler, *objects, "-o", str(built), *flags], cwd=ROOT, check=True)
    return built


@pytest.mark.slow
@pytest.mark.parametrize("isa", ISAS)
def test_no_report(program: Path, isa: str) -> None:
    done = subprocess.run(
        [str(program)],
        env={**os.environ, "FUSEDRES_CPU_ISA": isa},
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )
    if "this CPU has no" in done.stderr:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    assert done.stdout.splitlines()[0] == "algorithm 0 done"
    assert not done.stderr, done.stderr[-6000:]
