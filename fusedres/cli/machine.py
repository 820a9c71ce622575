"""What a number was measured on: processors and versions."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import torch

from fusedres.plan._device import processor, usable_cores

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
    return f"{processor()}, {usable_cores()} cores"
