"""Where the CPU kernels that are written in Python enter the dispatcher."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch._C import DispatchKey, DispatchKeySet

from fusedres.ops._registry import define_backend

_LIBRARY = define_backend("cpu")
_AUTOCAST = DispatchKeySet(DispatchKey.AutocastCPU)


def implements(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the decorated function as kernel op ``name`` of this back-end.

    Autocast is off inside: a kernel's dtypes are its operands', and ATen's convolutions would cast.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            with torch._C._ExcludeDispatchKeyGuard(_AUTOCAST):
                return function(*args, **kwargs)

        _LIBRARY.impl(name, run, "CPU")  # type: ignore[no-untyped-call]
        return function

    return register
