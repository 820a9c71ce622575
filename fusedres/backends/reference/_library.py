"""Where the reference kernels enter the dispatcher."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fusedres.ops._registry import define_backend

_LIBRARY = define_backend("reference")


def implements(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the decorated function as kernel op ``name`` of this back-end, for every device.

    Autocast is off inside: the dtypes are the kernel's own affair, and the convolutions below would
    otherwise be cast back to the dtype they were widened from.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(first: Tensor | list[Tensor], *args: Any, **kwargs: Any) -> Any:
            device = (first if isinstance(first, Tensor) else first[0]).device
            with torch.autocast(device.type, enabled=False):
                return function(first, *args, **kwargs)

        _LIBRARY.impl(name, run, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
        return function

    return register
