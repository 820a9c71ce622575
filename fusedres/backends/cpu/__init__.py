"""The CPU back-end: our vectorised C++ for everything around a convolution, oneDNN (through ATen) for those.

fp32 and bf16 on a CPU. The C++ registers itself in ``fusedres_cpu`` when ``fusedres._C`` is loaded; the
convolutions are composed here in Python. Without the extension the back-end says so and serves nothing.
"""

from __future__ import annotations

import torch

from fusedres._build import extension_missing
from fusedres.backends.cpu import algorithms, backward, blocks, conv, engine, pool
from fusedres.ops._dispatch import Backend, register_backend

__all__ = ["algorithms", "backward", "blocks", "conv", "engine", "pool"]

DTYPES = (torch.float32, torch.bfloat16)

_MISSING = extension_missing(
    "_C"
)  # asked once: torch.compile traces the question, but cannot trace an import


def _cannot_serve(device: torch.device, dtype: torch.dtype) -> str | None:
    if device.type != "cpu":
        return f"it serves tensors on the CPU; got {device}"
    if dtype not in DTYPES:
        return f"it serves float32 and bfloat16; got {dtype}"
    return None


register_backend(
    Backend(
        "cpu",
        lambda: _MISSING,
        _cannot_serve,
        prepare_block=blocks.prepare_block,
        prepare_stem=blocks.prepare_stem,
        prepare_head=blocks.prepare_head,
        algorithms=algorithms.algorithms,
        rule=engine.by_rule,
    )
)
