"""What a test needs to see inside a call: the kernels it runs, the memory it finds, the bytes it keeps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class KernelCalls(TorchDispatchMode):
    """Records the kernel ops (``fusedres_<backend>::<op>``) that run inside the context, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace.startswith("fusedres_"):
            assert not kwargs, f"{func} was called with keywords {sorted(kwargs)}"
            self.calls.append((func, args))
        return func(*args, **(kwargs or {}))

    def names(self) -> list[str]:
        return [func.__name__.split(".")[0] for func, _ in self.calls]


@contextmanager
def poisoned_memory() -> Iterator[None]:
    """Every tensor allocated uninitialised, by Python or C++, starts as NaN (integers: their maximum)."""
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    filling = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        assert torch.empty(3).isnan().all()
        yield
    finally:
        torch.utils.deterministic.fill_uninitialized_memory = filling
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def scattered(x: Tensor) -> Tensor:
    """The same values in memory that is neither contiguous nor channels_last: every second element."""
    twice = torch.full((*x.shape, 2), torch.nan if x.is_floating_point() else 255).to(x)
    twice[..., 0] = x
    return twice[..., 0]
