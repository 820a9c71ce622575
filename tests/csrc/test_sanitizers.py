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
LEFT_OUT = {
    *("blocks_packed.cpp", "conv_packed.cpp", "conv_wgrad.cpp", "dgrad_strided.cpp", "stem_packed.cpp"),
    *("engine_op.cpp", "memory.cpp"),
}
#: The extension's flags.
FLAGS = (*(flag for flag in CXX_FLAGS if flag not in STABLE_ABI), "-Icsrc", "-pthread")
#: A level that keeps stacks readable.
READABLE = ("-O1", "-g1")
#: What the engine is compared with: fast, and seen by no sanitizer. Built like the engine it took nine tenths
#: of the time.
REFERENCE = HERE / "plain_conv.cpp"

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


def built(sanitizers: str, folder: Path) -> Path:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++ found")
    sanitized = [*READABLE, f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all"]

    def compiled(source: str, *flags: str) -> str:
        target = str(folder / f"{Path(source).stem}.o")
        subprocess.run([compiler, "-c", source, "-o", target, *FLAGS, *flags], cwd=ROOT, check=True)
        return target

    objects = [compiled(source, *sanitized, *ISA_FLAGS.get(isa_of(source), ())) for source in sources()]
    # Last: of an inline function that it shares with the engine, the linker keeps the sanitized one.
    objects.append(compiled(str(REFERENCE)))
    program = folder / "engine_program"
    subprocess.run([compiler, *objects, "-o", str(program), *FLAGS, *sanitized], cwd=ROOT, check=True)
    return program


def assert_no_report(program: Path, isa: str | None) -> None:
    forced = {} if isa is None else {"FUSEDRES_CPU_ISA": isa}
    done = subprocess.run(
        [str(program)],
        env={**os.environ, **forced},
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )
    if "this CPU has no" in done.stderr:
        pytest.skip(f"this CPU has no {isa}")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    assert done.stdout.splitlines()[0] == "algorithm 0 done"
    assert not done.stderr, done.stderr[-6000:]


@pytest.fixture(scope="module")
def guarded_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built("address,undefined", tmp_path_factory.mktemp("guarded"))


@pytest.mark.slow
@pytest.mark.parametrize("isa", ISAS)
def test_no_bad_access(guarded_program: Path, isa: str) -> None:
    assert_no_report(guarded_program, isa)


@pytest.mark.slow
def test_no_race(tmp_path: Path) -> None:
    """With the portable tiles, whose loads ThreadSanitizer sees: only there is a relaxed barrier found."""
    assert_no_report(built("thread", tmp_path), "portable")
