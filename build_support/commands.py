"""The setuptools commands: per-ISA flags for C++ sources, and the build's facts inside the package."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from setuptools import Extension
from setuptools.command.build_py import build_py

from build_support.plan import ISA_FLAGS, BuildPlan, cpu_sources, cuda_sources, isa_of

CONFIG_FILE = "_build_config.json"

#: -lineinfo: profilers and tools/ptxemu name source lines; it does not change the code.
NVCC_FLAGS = ("-O3", "-std=c++20", "-lineinfo")


def build_py_command(plan: BuildPlan) -> type[build_py]:
    """``build_py`` that also writes what was resolved, for ``fusedres.build_info()``."""

    class BuildPy(build_py):  # type: ignore[misc]
        def run(self) -> None:
            super().run()
            package = Path("fusedres") if self.editable_mode else Path(self.build_lib, "fusedres")
            package.mkdir(parents=True, exist_ok=True)
            (package / CONFIG_FILE).write_text(json.dumps(asdict(plan), indent=2) + "\n")

    return BuildPy


def passes(sources: list[str]) -> dict[str, list[str]]:
    """Sources by what they are compiled with: each ISA's in link order, then nvcc's.

    nvcc's are apart because ``op.cpp`` and ``op.cu`` would make the same object file.
    """
    groups = {
        isa: [s for s in sources if isa_of(s) == isa and not s.endswith(".cu")] for isa in ("", *ISA_FLAGS)
    }
    groups["nvcc"] = [s for s in sources if s.endswith(".cu")]
    return {name: chosen for name, chosen in groups.items() if chosen}


def extensions(plan: BuildPlan, root: Path, machine: str) -> tuple[list[Extension], dict[str, Any]]:
    """The extension modules, and the ``build_ext`` that compiles them."""
    if not plan.extension:
        return [], {}
    os.environ.setdefault("CXX", str(plan.compiler))  # what was printed is what compiles
    if plan.cuda:
        # torch's own search stops at the directory above the nvcc on PATH; these two override it.
        os.environ["CUDA_HOME"] = str(plan.cuda_home)
        os.environ["TORCH_CUDA_ARCH_LIST"] = str(plan.cuda_archs)
    from torch.utils.cpp_extension import BuildExtension, CppExtension, CUDAExtension

    common = {"py_limited_api": True, "include_dirs": [str(root / "csrc")]}
    modules = [
        CppExtension(  # type: ignore[no-untyped-call]
            "fusedres._C",
            cpu_sources(root, machine),
            extra_compile_args={"cxx": list(plan.cxx_flags)},
            **common,
        )
    ]
    if plan.cuda:
        modules.append(
            CUDAExtension(  # type: ignore[no-untyped-call]
                "fusedres._C_cuda",
                cuda_sources(root),
                extra_compile_args={
                    "cxx": [*plan.cxx_flags, "-DUSE_CUDA", f'-DFUSEDRES_CUDA_ARCHS="{plan.cuda_archs}"'],
                    "nvcc": list(NVCC_FLAGS),
                },
                library_dirs=list(plan.cuda_library_dirs),
                **common,
            )
        )

    class BuildExt(BuildExtension):
        """Compiles the sources of each ISA in a pass of their own, with that ISA's flags.

        Inline functions of the standard library that two objects emit are merged by the linker, which
        keeps the first. Sources are linked in ascending ISA order, so what it keeps is never newer than
        its lowest user: no AVX-512 instruction can enter a baseline path that way.
        """

        def build_extension(self, ext: Extension) -> None:
            compile_one_isa = self.compiler.compile

            def compile_by_isa(sources: list[str], output_dir: str, **kwargs: Any) -> list[str]:
                postargs = kwargs.pop("extra_postargs")
                objects: list[str] = []
                for group, chosen in passes(sources).items():
                    flags = {**postargs, "cxx": [*postargs["cxx"], *ISA_FLAGS.get(group, ())]}
                    # A directory a pass, because each writes its own build.ninja.
                    folder = os.path.join(output_dir, group.strip("_") or "baseline")
                    objects += compile_one_isa(chosen, output_dir=folder, extra_postargs=flags, **kwargs)
                return objects

            self.compiler.compile = compile_by_isa
            try:
                super().build_extension(ext)
            finally:
                self.compiler.compile = compile_one_isa

    return modules, {"build_ext": BuildExt}
