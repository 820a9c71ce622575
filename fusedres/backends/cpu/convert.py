"""Activations from bf16 to fp32 and back (``csrc/cpu/convert.cpp``), in memory that is used again."""

from __future__ import annotations

import torch
from torch import Tensor

_LIBRARY = torch.library.Library("fusedres_cpu", "FRAGMENT")  # type: ignore[no-untyped-call]
for _schema in ("widened(Tensor x) -> Tensor", "narrowed(Tensor x) -> Tensor"):
    _LIBRARY.define(_schema)  # type: ignore[no-untyped-call]
_OPS = torch.ops.fusedres_cpu


def converted(x: Tensor, dtype: torch.dtype) -> Tensor:
    """``x`` (N, C, H, W), channels_last, fp32 or bf16, in the other of these types, or as it is."""
    if x.dtype == dtype:
        return x
    out: Tensor = (_OPS.widened if dtype == torch.float32 else _OPS.narrowed).default(x)
    return out
