"""The build: what it finds, what it decides, and what a finished package says about itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from build_support import cuda, plan
from build_support.commands import passes
from fusedres._build import build_info, extension_missing

ROOT = Path(__file__).resolve().parents[1]

VERSION = "nvcc: NVIDIA (R) Cuda compiler driver\nCuda compilation tools, release {release}, V{release}.88\n"
DRYRUN = """#$ _SPACE_=
#$ TOP={home}/bin/..
#$ LIBRARIES=  "-L{home}/bin/../targets/x86_64-linux/lib/stubs" "-L{home}/bin/../lib"
#$ PTXAS_FLAGS=
"""


def fake_nvcc(folder: Path, release: str, home: Path) -> dict[str, str]:
    """A program named nvcc in ``folder``, for a toolkit elsewhere; returns the environment that finds it."""
    folder.mkdir(parents=True, exist_ok=True)
    nvcc = folder / "nvcc"
    dryrun, version = DRYRUN.format(home=home), VERSION.format(release=release)
    nvcc.write_text(
        f"#!/bin/sh\nif [ $1 = --version ]; then echo '{version}'; else echo '{dryrun}' >&2; fi\n"
    )
    nvcc.chmod(0o755)
    return {"PATH": f"{folder}:/usr/bin:/bin"}


@pytest.fixture
def only_nvcc_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave a toolkit that this machine may have in the conventional place out of it."""
    found = cuda.nvcc_candidates
    monkeypatch.setattr(
        cuda, "nvcc_candidates", lambda env: [p for p in found(env) if not p.startswith("/usr/local")]
    )


class TestCudaToolkit:
    def test_is_where_nvcc_says_it_is(self, tmp_path: Path, only_nvcc_on_path: None) -> None:
        """A wrapper script on PATH lies elsewhere than the toolkit that it runs."""
        home = tmp_path / "opt" / "cuda"
        environ = fake_nvcc(tmp_path / "wrappers", "13.0", home)
        toolkit, reason = cuda.find_toolkit("13.2", environ)
        assert toolkit is not None
        assert toolkit.nvcc == str(tmp_path / "wrappers" / "nvcc")
        assert toolkit.home == str(home)
        assert toolkit.library_dirs == (f"{home}/targets/x86_64-linux/lib/stubs", f"{home}/lib")
        assert "13.0" in reason and "13.2" in reason

    def test_of_another_major_is_refused(self, tmp_path: Path, only_nvcc_on_path: None) -> None:
        environ = fake_nvcc(tmp_path, "12.8", tmp_path)
        assert cuda.find_toolkit("13.0", environ) == (
            None,
            f"nvcc's major is not that of torch's CUDA 13.0: 12.8 at {tmp_path / 'nvcc'}",
        )

    def test_of_cuda_home_comes_first(self, tmp_path: Path, only_nvcc_on_path: None) -> None:
        environ = fake_nvcc(tmp_path / "path", "12.8", tmp_path)
        fake_nvcc(tmp_path / "wished" / "bin", "13.1", tmp_path / "wished")
        toolkit, _ = cuda.find_toolkit("13.0", environ | {"CUDA_HOME": str(tmp_path / "wished")})
        assert toolkit is not None and toolkit.release == "13.1"

    def test_is_not_sought_for_a_torch_without_cuda(self) -> None:
        assert cuda.find_toolkit(None, dict(os.environ)) == (None, "this torch is built without CUDA")

    def test_is_absent_where_no_nvcc_is(self, tmp_path: Path, only_nvcc_on_path: None) -> None:
        toolkit, reason = cuda.find_toolkit("13.0", {"PATH": str(tmp_path)})
        assert toolkit is None and "no nvcc found" in reason

    def test_is_absent_where_nvcc_is_no_compiler(self, tmp_path: Path, only_nvcc_on_path: None) -> None:
        (tmp_path / "nvcc").write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / "nvcc").chmod(0o755)
        assert cuda.find_toolkit("13.0", {"PATH": str(tmp_path)})[0] is None


class TestPlan:
    def test_without_the_extension_on_request(self) -> None:
        chosen = plan.resolve(ROOT, {"FUSEDRES_NO_EXT": "1"})
        assert not chosen.extension and "FUSEDRES_NO_EXT" in chosen.extension_reason

    def test_without_the_extension_where_no_compiler_is(self, tmp_path: Path) -> None:
        chosen = plan.resolve(ROOT, {"PATH": str(tmp_path)})
        assert not chosen.extension and "no C++ compiler" in chosen.extension_reason

    def test_a_compiler_that_is_named_must_be_there(self, tmp_path: Path) -> None:
        with pytest.raises(RuntimeError, match="CXX must name a C\\+\\+ compiler; got 'g\\+\\+-99 -m64'"):
            plan.resolve(ROOT, {"PATH": str(tmp_path), "CXX": "g++-99 -m64"})

    def test_names_compiler_torch_and_the_reason_about_cuda(self) -> None:
        chosen = plan.resolve(ROOT, dict(os.environ))
        text = chosen.describe()
        assert chosen.extension
        for fact in (chosen.compiler, chosen.torch, chosen.cuda_reason, "-DTORCH_STABLE_ONLY"):
            assert fact and fact in text

    def test_cuda_is_left_out_on_request(self) -> None:
        chosen = plan.resolve(ROOT, dict(os.environ) | {"FUSEDRES_CUDA_ARCHS": "none"})
        assert not chosen.cuda and chosen.cuda_reason == "FUSEDRES_CUDA_ARCHS is none"

    def test_no_flag_ties_the_build_to_this_machine(self) -> None:
        flags = [*plan.CXX_FLAGS, *(flag for flags in plan.ISA_FLAGS.values() for flag in flags)]
        assert not [flag for flag in flags if flag.startswith(("-march", "-mtune", "-mcpu"))]


class TestSources:
    @pytest.mark.parametrize(
        ("path", "isa"),
        [
            ("csrc/cpu/affine_add_act.cpp", ""),
            ("csrc/cpu/kernels/kernels_avx2.cpp", "_avx2"),
            ("csrc/cpu/kernels/kernels_avx512.cpp", "_avx512"),
            ("csrc/cpu/conv/tile_bf16_avx512bf16.cpp", "_avx512bf16"),
            ("csrc/cpu/conv/tile_bf16_amx.cpp", "_amx"),
        ],
    )
    def test_a_suffix_names_the_isa(self, path: str, isa: str) -> None:
        assert plan.isa_of(path) == isa

    def test_come_in_ascending_isa(self) -> None:
        order = ["", *plan.ISA_FLAGS]
        ranks = [order.index(plan.isa_of(path)) for path in plan.cpu_sources(ROOT, "x86_64")]
        assert ranks == sorted(ranks) and len(set(ranks)) > 2

    def test_of_an_x86_isa_are_left_out_elsewhere(self) -> None:
        paths = plan.cpu_sources(ROOT, "aarch64")
        assert paths and all(plan.isa_of(path) == "" for path in paths)

    def test_are_compiled_in_a_pass_a_compiler(self) -> None:
        """op.cpp and op.cu would make one object file."""
        sources = ["cuda/op.cpp", "cuda/op.cu", "cpu/k_avx2.cpp", "cpu/k.cpp"]
        assert passes(sources) == {
            "": ["cuda/op.cpp", "cpu/k.cpp"],
            "_avx2": ["cpu/k_avx2.cpp"],
            "nvcc": ["cuda/op.cu"],
        }

    def test_of_cuda_are_none_without_a_kernel(self, tmp_path: Path) -> None:
        folder = tmp_path / "csrc" / "cuda"
        folder.mkdir(parents=True)
        (folder / "op.cpp").touch()
        assert plan.cuda_sources(tmp_path) == []
        (folder / "op.cu").touch()
        assert plan.cuda_sources(tmp_path) == ["csrc/cuda/op.cpp", "csrc/cuda/op.cu"]


class TestBuildInfo:
    def test_says_what_was_built_and_what_is_loaded(self) -> None:
        info = build_info()
        assert ("_C" in info["loaded"]) == (extension_missing("_C") is None)
        if info["extension"]:
            assert info["cpu_isa"] in ("portable", "avx2", "avx512")
            assert info["compiler"] and info["torch"]

    def test_an_extension_that_is_not_there_has_a_reason(self) -> None:
        reason = extension_missing("_C_cuda")
        if reason is not None:
            assert "fusedres._C_cuda cannot be loaded" in reason and "the build says" in reason


def build_wheel(folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """``pip wheel`` of a copy of the sources that a build needs, without build isolation."""
    source = folder / "source"
    for name in ("build_support", "csrc", "fusedres"):
        shutil.copytree(
            ROOT / name, source / name, ignore=shutil.ignore_patterns("*.so", "_build_config.json")
        )
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "LICENSE", "README.md"):
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps"]
    return subprocess.run(
        [*command, "-w", str(folder / "wheels"), str(source)],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
    )


#: A block forward and backward, what the build says, and why each other back-end is not to be had.
WITHOUT_EXTENSION = """
import torch
import fusedres
from fusedres.ops._dispatch import BACKENDS

block = fusedres.FusedBasicBlock(8, 8)
x = torch.randn(2, 8, 5, 5, requires_grad=True)
block(x).sum().backward()
assert x.grad is not None
print(fusedres.build_info()["extension_reason"])
assert "torch sees no GPU" in BACKENDS["triton"].unavailable() or torch.cuda.is_available()
for name in ("cpu", "cuda"):
    assert "cannot be loaded" in BACKENDS[name].unavailable(), name
"""


@pytest.mark.slow
class TestWheel:
    def test_without_a_compiler_works_on_the_other_back_ends(self, tmp_path: Path) -> None:
        """No C++ compiler and no nvcc: pure Python, whose blocks run, and whose Triton kernels are there."""
        tools = tmp_path / "tools"
        tools.mkdir()
        done = build_wheel(tmp_path, PATH=str(tools), CXX="", CUDA_HOME="")
        assert done.returncode == 0, done.stderr
        (wheel,) = (tmp_path / "wheels").iterdir()
        assert wheel.name.endswith("-py3-none-any.whl")
        zipfile.ZipFile(wheel).extractall(tmp_path / "site")
        # -S: an editable install of these sources would lend its extension.
        paths = os.pathsep.join([str(tmp_path / "site"), sysconfig.get_path("purelib")])
        ran = subprocess.run(
            [sys.executable, "-S", "-c", WITHOUT_EXTENSION],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": paths},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        assert "no C++ compiler" in ran.stdout

    def test_without_the_extension_is_pure_python(self, tmp_path: Path) -> None:
        done = build_wheel(tmp_path, FUSEDRES_NO_EXT="1")
        assert done.returncode == 0, done.stderr
        (wheel,) = (tmp_path / "wheels").iterdir()
        assert wheel.name.endswith("-py3-none-any.whl")
        names = zipfile.ZipFile(wheel).namelist()
        assert {"fusedres/_build_config.json", "fusedres/py.typed"} <= set(names)
        assert not [name for name in names if name.endswith(".so")]

    def test_fails_where_the_compiler_fails(self, tmp_path: Path) -> None:
        done = build_wheel(tmp_path, CXX=str(shutil.which("false")), FUSEDRES_CUDA_ARCHS="none")
        assert done.returncode != 0
        assert not list(tmp_path.glob("wheels/*.whl"))
