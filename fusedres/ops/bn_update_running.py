"""``bn_update_running``: running statistics on the device, without a synchronisation."""

from __future__ import annotations

from collections.abc import Sequence

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
