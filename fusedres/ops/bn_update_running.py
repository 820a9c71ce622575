"""``bn_update_running``: running statistics on the device, without a synchronisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from fusedres.ops import _checks
from fusedres.ops._dispatch import resolve_backend
from fusedres.ops._registry import kernel, kernel_op


@kernel_op(
    "bn_update_running",
    "(Tensor(a!)[] running_mean, Tensor(b!)[] running_var, Tensor(c!)[] num_batches_tracked,"
    " Tensor[] mean, Tensor[] var, SymInt[] n, float? momentum) -> ()",
)
def bn_update_running_fake(
    running_mean: Sequence[Tensor],
    running_var: Sequence[Tensor],
    num_batches_tracked: Sequence[Tensor],
    mean: Sequence[Tensor],
    var: Sequence[Tensor],
    n: Sequence[int],
    momentum: float | None,
) -> None:
    """One entry a layer, so that a block's layers move in one launch; no counts at all, or one each.

    Layers of a call may not share what is written: nothing says which of them would come first.
    """
    return None


class RunningLayer(NamedTuple):
    """What a call of the kernel op holds of one layer; ``n`` values a channel."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor | None
    mean: Tensor
    var: Tensor
    n: int


def running_layers(
    running_mean: Sequence[Tensor],
    running_var: Sequence[Tensor],
    num_batches_tracked: Sequence[Tensor],
    mean: Sequence[Tensor],
    var: Sequence[Tensor],
    n: Sequence[int],
) -> list[RunningLayer]:
    """The kernel op's lists by layer, for a back-end to go through.

    Raises:
        ValueError: the lists do not have one entry a layer.
    """
    lists = {"running_mean": running_mean, "running_var": running_var, "mean": mean, "var": var, "n": n}
    if num_batches_tracked:
        lists["num_batches_tracked"] = num_batches_tracked
    if len({len(entries) for entries in lists.values()}) != 1:
        given = ", ".join(f"`{name}`: {len(entries)}" for name, entries in lists.items())
        raise ValueError(f"bn_update_running: every list must have an entry a layer; got {given}")
    counts: Sequence[Tensor | None] = num_batches_tracked or [None] * len(n)
    return [
        RunningLayer(*layer) for layer in zip(running_mean, running_var, counts, mean, var, n, strict=True)
    ]


def bn_update_running(
    running_mean: Tensor,
    running_var: Tensor,
    num_batches_tracked: Tensor | None,
    mean: Tensor,
    var: Tensor,
    n: int,
    momentum: float | None = 0.1,
    *,
    backend: str | None = None,
) -> None:
    """Move a layer's running statistics towards a batch's, in place.

    ``num_batches_tracked`` (int64 scalar tensor) is counted up first, where there is one.
    ``momentum=None`` is torch's cumulative average with factor 1 / num_batches_tracked.

    Args:
        mean, var: (C,) of the batch; ``var`` is biased, the update uses n / (n − 1) of it, as torch does.
        n: values per channel, N·H·W.
    """
    if momentum is None and num_batches_tracked is None:
        raise ValueError(
            "bn_update_running: `num_batches_tracked` is needed for the cumulative average (momentum=None); "
            "got None"
        )
    for name, tensor in (("running_mean", running_mean), ("running_var", running_var), ("var", var)):
        _checks.channel_vector("bn_update_running", name, tensor, mean.shape[0], mean)
    run = kernel(resolve_backend(mean, backend), "bn_update_running")
    counts = [] if num_batches_tracked is None else [num_batches_tracked]
    run([running_mean], [running_var], counts, [mean], [var], [n], momentum)
