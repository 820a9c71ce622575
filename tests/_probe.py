"""What a test needs to see inside a call: the kernels it runs, the memory it finds, the bytes it keeps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class KernelCalls(TorchDispatchMode):
    """Records the kernel ops (``fusedres_<backend>::<op>``) that run inside the context, in order.

    Block ops (``fusedres::<op>``) are entered, kernels are not; ``library`` records the library's
    convolution backwards that block ops run themselves.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...]]] = []
        self.library: list[tuple[Any, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "fusedres":
            device = next(a for a in args if isinstance(a, Tensor)).device
            key = getattr(torch._C.DispatchKey, torch._C._dispatch_key_for_device(device.type))
            with self:  # what the op's own kernel calls is seen as well
                return func.redispatch(torch._C.DispatchKeySet(key), *args)
        if func.namespace.startswith("fusedres_"):
            assert not kwargs, f"{func} was called with keywords {sorted(kwargs)}"
            self.calls.append((func, args))
        if func is torch.ops.aten.convolution_backward.default:
            self.library.append(args)
        return func(*args, **(kwargs or {}))

    def names(self) -> list[str]:
        return [func.__name__.split(".")[0] for func, _ in self.calls]

    def input_gradients(self) -> int:
        """How many convolutions were asked for their input's gradient, by kernels and by the library."""
        return self.names().count("conv_dgrad") + sum(args[10][0] for args in self.library)

    def weight_gradients(self) -> int:
        return self.names().count("conv_wgrad") + sum(args[10][1] for args in self.library)


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


@contextmanager
def saved_for_backward() -> Iterator[list[Tensor]]:
    """Collects what autograd saves inside the context, each storage once."""
    saved: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        saved.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        collected[:] = saved.values()
        return tensor

    collected: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield collected
