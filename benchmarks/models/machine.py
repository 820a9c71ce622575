"""What was measured on, and with which versions."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.models.peers import PEERS, version_of

ROOT = Path(__file__).resolve().parents[2]

#: Instruction sets that decide which kernels a library picks.
ISA = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd", "sve", "bf16")


def cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpuinfo() -> dict[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def device() -> dict[str, Any]:
    """The machine as the results name it."""
    info = _cpuinfo()
    flags = set((info.get("flags") or info.get("Features") or "").split())
    name = info.get("model name") or platform.processor() or platform.machine()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": re.sub(r"\((R|TM)\)", "", name),
        "cores": cores(),
        "isa": [flag for flag in ISA if flag in flags],
        "memory_gib": round(memory / 2**30),
        "system": f"{platform.system()} {platform.machine()}",
    }


def title(machine: dict[str, Any]) -> str:
    """The machine in a heading: ``AMD EPYC, AVX512 BF16, 2 cores``.

    CPUs that share a name, as a cloud's do, are told apart by the widest of their instruction sets.
    """
    widest = [flag.upper().replace("_", " ") for flag in machine["isa"][-1:]]
    return ", ".join([machine["cpu"], *widest, f"{machine['cores']} cores"])


def slug(machine: dict[str, Any]) -> str:
    """A file name for the machine: ``amd-epyc-avx512-bf16-2-cores``."""
    return "-".join(re.findall(r"[a-z0-9]+", title(machine).lower()))


def versions() -> dict[str, str | None]:
    """Every distribution a peer needs, fusedres and Python; ``None`` is not installed."""
    packages = sorted({package for peer in PEERS.values() for package in peer.packages} | {"fusedres"})
    return {"python": platform.python_version()} | {package: version_of(package) for package in packages}


def commit() -> str | None:
    """The checkout's commit, with a ``+`` where tracked files differ from it."""
    try:
        head = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        changed = subprocess.run(["git", "diff", "--quiet", "HEAD"], cwd=ROOT, check=False).returncode
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if changed else "")
