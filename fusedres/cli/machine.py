"""What a number was measured on: processors and versions."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

#: Packages whose version can change a result or decide what works.
PACKAGES = ("fusedres", "torch", "torchvision", "triton", "numpy", "pillow")


def versions() -> dict[str, str]:
    """Python's version and that of each of :data:`PACKAGES`, ``"not installed"`` where it is missing."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def device_name(device: torch.device) -> str:
    """The GPU's or the processor's name, and how many cores this process may use."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_processor()}, {usable_cores()} cores"


def usable_cores() -> int:
    """Cores this process may run on, where the system says so; else all of them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
