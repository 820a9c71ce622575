"""Interleaved timing, kernels called, and bytes kept for backward."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.autograd.profiler_util import FunctionEvent

from fusedres.plan._lookup import DEFAULT, planned
from fusedres.plan._record import record

#: Seconds. A shorter sample drowns in the scheduler's noise; calls are repeated to reach it.
SHORTEST_SAMPLE = 0.1
WARM_UP_CALLS = 2

#: Ops that move no data themselves: allocations, views, bookkeeping, and wrappers of an inner op.
NOT_KERNELS = frozenset(
    {
        *("aten::alias", "aten::_reshape_alias", "aten::as_strided", "aten::as_strided_", "aten::chunk"),
        *(
            "aten::detach",
            "aten::detach_",
            "aten::expand",
            "aten::expand_as",
            "aten::flatten",
            "aten::narrow",
        ),
        *("aten::permute", "aten::reshape", "aten::resize_", "aten::resolve_conj", "aten::resolve_neg"),
        *(
            "aten::select",
            "aten::set_",
            "aten::slice",
            "aten::split",
            "aten::split_with_sizes",
            "aten::squeeze",
        ),
        *("aten::t", "aten::transpose", "aten::unbind", "aten::unflatten", "aten::unsqueeze", "aten::view"),
        *("aten::view_as", "aten::empty", "aten::empty_like", "aten::empty_strided", "aten::new_empty"),
        *("aten::new_empty_strided", "aten::lift_fresh", "aten::item", "aten::_local_scalar_dense"),
        *("aten::clone", "aten::contiguous", "aten::_to_copy", "aten::ones_like", "aten::zeros"),
        *("aten::zeros_like", "aten::full", "aten::full_like", "aten::_unsafe_view"),
        *("aten::is_nonzero", "aten::_nnpack_available", "aten::result_type", "aten::can_cast", "aten::to"),
    }
)


#: Kernels that a kernel calls to lay out its operands: counted beside it, not in its place.
PREPARATIONS = frozenset({"aten::copy_", "aten::fill_", "aten::zero_"})


@dataclass(frozen=True)
class Timing:
    """Seconds a call of one contender, one number a round, in the order they were taken."""

    name: str
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        return quartiles(self.seconds)


@dataclass(frozen=True)
class Ratio:
    """How many times faster one contender is than another: of medians, and round by round with its spread."""

    of_medians: float
    median_of_pairs: float
    quartiles: tuple[float, float]


def quartiles(values: Iterable[float]) -> tuple[float, float]:
    """The first and third quartile, by linear interpolation; a single value is both."""
    ordered = sorted(values)
    if len(ordered) == 1:
        return ordered[0], ordered[0]
    first, _, third = statistics.quantiles(ordered, n=4, method="inclusive")
    return first, third


def speed_ratio(ours: Timing, other: Timing) -> Ratio:
    """How many times faster ``ours`` is; rounds are paired, as they were taken next to each other."""
    pairs = [theirs / mine for mine, theirs in zip(ours.seconds, other.seconds, strict=True)]
    return Ratio(other.median / ours.median, statistics.median(pairs), quartiles(pairs))


def interleave(
    contenders: Mapping[str, Callable[[], object]],
    rounds: int,
    device: torch.device,
    on_round: Callable[[], None] = lambda: None,
) -> tuple[list[Timing], int]:
    """Time every contender once a round, each round starting with another one.

    Returns:
        A timing for each contender, and how many calls a sample is the mean of.
    """
    names = list(contenders)
    quickest = math.inf
    for call in contenders.values():
        for _ in range(WARM_UP_CALLS):
            elapsed = _seconds(call, 1, device)
        quickest = min(quickest, elapsed)
    calls = max(1, math.ceil(SHORTEST_SAMPLE / quickest))
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for index in range(rounds):
        for offset in range(len(names)):
            name = names[(index + offset) % len(names)]
            seconds[name].append(_seconds(contenders[name], calls, device) / calls)
        on_round()
    return [Timing(name, tuple(seconds[name])) for name in names], calls


def planned_blocks(run: Callable[[], object]) -> tuple[int, int]:
    """How many of the distinct blocks that ``run`` runs a plan decides, and how many there are."""
    seen = record(run).seen.values()
    return sum(planned(block.block, block.x.device) != DEFAULT for block in seen), len(seen)


def count_kernels(call: Callable[[], object], device: torch.device) -> int:
    """Kernels that ``call`` runs: launches on a GPU, elsewhere innermost dispatcher ops that move data.

    An op that only calls others is not counted, its parts are: a fused op counts for what it really runs.
    """
    call()
    if device.type == "cuda":
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as on_device:
            call()
            _wait(device)
        launches = [e for e in on_device.events() or [] if e.device_type == torch.autograd.DeviceType.CUDA]
        return sum(not e.name.startswith(("Memcpy", "Memset")) for e in launches)
    # Kineto starts even where it is not asked for, and writes to stderr that it found no GPU
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with torch.autograd.profiler.profile(use_kineto=False) as profiler:
        call()
    return sum(_is_kernel(event) for event in profiler.function_events or [])


def saved_bytes(forward: Callable[[], Tensor], model: nn.Module) -> int:
    """Bytes that autograd keeps for the backward of ``forward``: distinct storages, parameters left out."""
    own = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = forward()
    total = sum(storages.values())
    del loss  # until here the graph kept every storage alive, so that no address was used twice
    return total


def _is_kernel(event: FunctionEvent) -> bool:
    """An op that moves data and calls none that does, but for preparing its own memory."""
    if not _moves_data(event.name):
        return False
    inner = _data_moved_below(event)
    return not inner or (event.name not in PREPARATIONS and inner <= PREPARATIONS)


def _data_moved_below(event: FunctionEvent) -> set[str]:
    names: set[str] = set()
    for child in event.cpu_children:
        names |= _data_moved_below(child) | ({child.name} if _moves_data(child.name) else set())
    return names


def _moves_data(name: str) -> bool:
    return (
        "::" in name and not name.startswith(("autograd::", "torch::autograd::")) and name not in NOT_KERNELS
    )


def _seconds(call: Callable[[], object], calls: int, device: torch.device) -> float:
    _wait(device)
    start = time.perf_counter()
    for _ in range(calls):
        call()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
