"""Find the CUDA toolkit by asking nvcc, and say why there is none.

A wrapper script named nvcc on PATH (as distributions and module systems install) misleads a search
by path: ``dirname(dirname(which("nvcc")))`` has neither headers nor libcudart. ``nvcc --dryrun`` names
the directories that nvcc itself uses.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass

#: One cubin for every generation, and PTX of the oldest for what lies between and after.
DEFAULT_ARCHS = "8.0+PTX;9.0;10.0;12.0"


@dataclass(frozen=True)
class Toolkit:
    """A CUDA toolkit: the nvcc that was asked, its release ("13.0") and the directories it named."""

    nvcc: str
    release: str
    home: str
    library_dirs: tuple[str, ...]


def nvcc_candidates(environ: dict[str, str]) -> list[str]:
    """The compilers to ask, in order: the user's CUDA_HOME, PATH, the conventional place."""
    found = [
        os.path.join(environ[name], "bin", "nvcc") for name in ("CUDA_HOME", "CUDA_PATH") if environ.get(name)
    ]
    found += [shutil.which("nvcc", path=environ.get("PATH")) or "", "/usr/local/cuda/bin/nvcc"]
    return [path for path in dict.fromkeys(found) if os.access(path, os.X_OK)]


def parse_release(version_text: str) -> str | None:
    """The release in the output of ``nvcc --version``, as "13.0"."""
    match = re.search(r"release (\d+\.\d+)", version_text)
    return match.group(1) if match else None


def parse_dryrun(dryrun_text: str) -> tuple[str, tuple[str, ...]] | None:
    """The toolkit's root and library directories in the output of ``nvcc --dryrun``."""
    settings = dict(re.findall(r"^#\$ (\w+)=(.*)$", dryrun_text, re.MULTILINE))
    if "TOP" not in settings:
        return None
    libraries = [flag[2:] for flag in shlex.split(settings.get("LIBRARIES", "")) if flag.startswith("-L")]
    return os.path.realpath(settings["TOP"].strip()), tuple(os.path.realpath(path) for path in libraries)


def ask(nvcc: str) -> Toolkit | None:
    """What ``nvcc`` says about itself, or ``None`` where it does not run."""

    def output(*arguments: str) -> str:
        done = subprocess.run([nvcc, *arguments], capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    release = parse_release(output("--version"))
    places = parse_dryrun(output("--dryrun", "-x", "cu", os.devnull, "-o", os.devnull))
    if release is None or places is None:
        return None
    return Toolkit(nvcc, release, *places)


def find_toolkit(torch_cuda: str | None, environ: dict[str, str]) -> tuple[Toolkit | None, str]:
    """The toolkit to compile with, and the reason for the answer.

    ``torch_cuda`` is ``torch.version.cuda``: the toolkit's major must be its major, because a CUDA
    runtime of another major cannot share a process with torch's.
    """
    if torch_cuda is None:
        return None, "this torch is built without CUDA"
    asked = [ask(nvcc) for nvcc in nvcc_candidates(environ)]
    toolkits = [toolkit for toolkit in asked if toolkit is not None]
    if not toolkits:
        return None, "no nvcc found (PATH, CUDA_HOME, /usr/local/cuda)"
    for toolkit in toolkits:
        if toolkit.release.split(".")[0] == torch_cuda.split(".")[0]:
            return toolkit, f"nvcc {toolkit.release} at {toolkit.nvcc} for torch's CUDA {torch_cuda}"
    seen = ", ".join(f"{toolkit.release} at {toolkit.nvcc}" for toolkit in toolkits)
    return None, f"nvcc's major is not that of torch's CUDA {torch_cuda}: {seen}"
