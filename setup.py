"""Build fusedres: ``fusedres._C`` (CPU) and, where nvcc and CUDA sources are found, ``fusedres._C_cuda``.

``build_support/plan.py`` decides what is compiled and with which flags, ``build_support/commands.py``
compiles it. A C++ file ``csrc/cpu/**/*_avx2.cpp`` (``_avx512``, ``_avx512bf16``, ``_amx``) is compiled for
that ISA, every other one for the baseline. Environment: FUSEDRES_NO_EXT=1 (pure Python),
FUSEDRES_CUDA_ARCHS, CXX, MAX_JOBS.
"""

import platform
import sys
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))  # PEP 517 front ends do not put the source tree on the path

from build_support.commands import build_py_command, extensions  # noqa: E402
from build_support.plan import resolve  # noqa: E402

PLAN = resolve(ROOT)
print(PLAN.describe(), file=sys.stderr)

EXT_MODULES, EXT_COMMANDS = extensions(PLAN, ROOT, platform.machine())

setup(
    ext_modules=EXT_MODULES,
    cmdclass={"build_py": build_py_command(PLAN), **EXT_COMMANDS},
    # abi3: one wheel for CPython 3.10 and every later one.
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if EXT_MODULES else {},
)
