"""What identifies a device: a plan measured on one says nothing about another."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path

import torch

from fusedres._build import build_info


@cache
def identity(device: torch.device) -> str:
    """One line that names the device and whatever decides which kernels it runs."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        # AMD's architectures have names instead of numbers.
        arch = getattr(properties, "gcnArchName", "") if torch.version.hip else ""
        arch = arch or f"compute capability {properties.major}.{properties.minor}"
        return f"{properties.name}, {arch}, {properties.multi_processor_count} processors"
    if device.type == "cpu":
        return f"{processor()}, {build_info()['cpu_isa'] or 'no extension'}"
    return device.type


@cache
def processor() -> str:
    """The processor's name as the system gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """Cores this process may run on, where the system says so; else all of them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
