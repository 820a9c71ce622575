"""The CUDA back-end: our kernels in C++ (``csrc/cuda``), for compute capability 8.0 and newer.

fp16, bf16 and fp32 on an NVIDIA GPU. The C++ registers itself in ``fusedres_cuda`` when
``fusedres._C_cuda`` is loaded. Where our convolutions do not serve (exact fp32, compute capability 7.5),
torch's own do, with our pointwise kernels around them. Without the extension, or without a GPU that it was
built for, the back-end says so and serves nothing.
"""

from __future__ import annotations

import torch

from fusedres._build import extension_missing
from fusedres.backends.cuda import _device, library
from fusedres.ops._dispatch import Backend, register_backend

__all__ = ["library"]

DTYPES = (torch.float16, torch.bfloat16, torch.float32)

_MISSING = extension_missing("_C_cuda")  # asked once: torch.compile cannot trace an import


def _unavailable() -> str | None:
    if _MISSING is not None:
        return _MISSING
    return None if torch.cuda.is_available() else "torch sees no GPU"


def _cannot_serve(device: torch.device, dtype: torch.dtype) -> str | None:
    if device.type != "cuda":
        return f"it serves tensors on a GPU; got {device}"
    if dtype not in DTYPES:
        return f"it serves float16, bfloat16 and float32; got {dtype}"
    return _device.lacks_kernels(device.index)


register_backend(Backend("cuda", _unavailable, _cannot_serve))
