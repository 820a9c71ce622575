"""Where the Triton kernels enter the dispatcher, and how they are launched."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._library.triton import set_wrap_triton_enabled
from torch._subclasses.functional_tensor import FunctionalTensorMode
from torch.export._trace import custom_triton_ops_decomposition_disabled
from torch.library import wrap_triton

from fusedres.backends.triton._device import INTERPRETED
from fusedres.ops._registry import define_backend, namespace_of

_LIBRARY = define_backend("triton")


def implements(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the decorated function as kernel op ``name``: what ``torch.library.triton_op`` does.

    ``triton_op`` itself would define the op a second time, with an autograd kernel that runs the forward
    and fails only in backward; kernel ops refuse a gradient when they are called. As there, eager calls
    launch directly, and ``torch.compile`` sees the Triton kernels in place of the op (``torch.export``
    keeps the op, so that the program can be serialised).
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(first: Tensor | list[Tensor], *args: Any, **kwargs: Any) -> Any:
            on = first if isinstance(first, Tensor) else first[0]
            with torch.cuda.device_of(on), set_wrap_triton_enabled(False):
                return function(first, *args, **kwargs)

        def decompose(mode: Any, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if INTERPRETED or custom_triton_ops_decomposition_disabled():
                return mode.__torch_dispatch__(op, types, args, kwargs)
            with mode:
                return function(*args, **(kwargs or {}))

        _LIBRARY.impl(name, run, "CompositeExplicitAutograd")
        torch.library.register_torch_dispatch(
            f"{namespace_of('triton')}::{name}", FunctionalTensorMode, decompose, lib=_LIBRARY
        )
        return function

    return register


def launch(kernel: Any, grid: Any, *args: Any, **meta: Any) -> None:
    """Run ``kernel`` over ``grid`` (a tuple, or a function of the constants), on torch's current stream.

    ``meta`` holds the kernel's constants, and ``num_warps`` and ``num_stages``.
    """
    wrap_triton(kernel)[grid](*args, **meta)


def dense(*vectors: Tensor | None) -> list[Tensor | None]:
    """Per-channel vectors as kernels read them: contiguous."""
    return [None if v is None else v.contiguous() for v in vectors]
