"""The compiled part of the package: load it where it is present, say why not where it is absent."""

from __future__ import annotations

import importlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import torch  # noqa: F401  (the extensions link against libtorch, which must be loaded first)

_CONFIG = Path(__file__).with_name("_build_config.json")


@cache
def build_info() -> dict[str, Any]:
    """What the build resolved: compiler, torch, flags, and whether CUDA was compiled, each with its reason.

    Returns:
        The build's facts, with ``loaded``: the extensions that this process could load, and
        ``cpu_isa``: the instruction set the CPU kernels chose ("portable", "avx2" or "avx512").
    """
    facts: dict[str, Any] = {
        "extension": False,
        "extension_reason": "the package was not built by its setup.py",
    }
    if _CONFIG.exists():
        facts = json.loads(_CONFIG.read_text())
    facts["loaded"] = [name for name in ("_C", "_C_cuda") if extension_missing(name) is None]
    facts["cpu_isa"] = load_extension("_C").cpu_isa() if "_C" in facts["loaded"] else None
    return facts


@cache
def extension_missing(name: str) -> str | None:
    """Why ``fusedres.<name>`` cannot be loaded, or ``None`` where it is."""
    try:
        load_extension(name)
    except ImportError as error:
        reason = "not built"
        if _CONFIG.exists():
            config = json.loads(_CONFIG.read_text())
            reason = config["cuda_reason"] if name == "_C_cuda" else config["extension_reason"]
        return f"fusedres.{name} cannot be loaded ({error}); the build says: {reason}"
    return None


def load_extension(name: str) -> Any:
    """Import ``fusedres.<name>``, which registers its kernels with torch's dispatcher."""
    return importlib.import_module(f"fusedres.{name}")
