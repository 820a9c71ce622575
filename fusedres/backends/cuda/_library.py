"""Where the CUDA kernels enter the dispatcher, and through which they reach torch's convolutions."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch._C import DispatchKey, DispatchKeySet

from fusedres._build import extension_missing, load_extension
from fusedres.ops._registry import KERNEL_OPS, define_backend

_LIBRARY = define_backend("cuda")
if extension_missing("_C_cuda") is None:
    load_extension("_C_cuda")

#: What csrc/cuda/common/library.h calls.
_FALLBACK = torch.library.Library("fusedres_cuda_library", "DEF")  # type: ignore[no-untyped-call]
_AUTOCAST = DispatchKeySet(DispatchKey.AutocastCUDA)


def _has_kernel(name: str) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(f"fusedres_cuda::{name}", "CUDA")


def composes(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the decorated function as what op ``name``'s kernel falls back on.

    Autocast is off inside: a kernel's dtypes are its operands', and ATen's convolutions would cast.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            with torch._C._ExcludeDispatchKeyGuard(_AUTOCAST):
                return function(*args, **kwargs)

        _FALLBACK.define(name + KERNEL_OPS[name].schema)  # type: ignore[no-untyped-call]
        _FALLBACK.impl(name, run, "CUDA")  # type: ignore[no-untyped-call]
        if not _has_kernel(name):
            _LIBRARY.impl(name, run, "CUDA")  # type: ignore[no-untyped-call]
        return function

    return register


def _allow_tf32() -> bool:
    return bool(torch.backends.cudnn.allow_tf32)


_FALLBACK.define("allow_tf32() -> bool")  # type: ignore[no-untyped-call]
_FALLBACK.impl("allow_tf32", _allow_tf32, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
