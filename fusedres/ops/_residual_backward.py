"""The backward of :mod:`fusedres.ops._residual`: from the join's gradient to every operand's."""

from __future__ import annotations

from torch import Tensor

from fusedres._settings import PRECISION, as_it_was
from fusedres.ops._residual import Block, Method
from fusedres.ops._residual_batch_stats import BatchStatsWalk
from fusedres.ops._residual_frozen import FrozenWalk
from fusedres.ops._residual_walk import Gradients, Needs, Saved

__all__ = ["Gradients", "Needs", "Saved", "backward"]


def backward(
    method: Method, block: Block, dout: Tensor, saved: Saved, identity: bool, needs: Needs
) -> Gradients:
    """Every gradient of a block that ``needs`` asks for.

    ``identity`` says that the skip is the block's own input, so that the join's gradient is added to dx.
    """
    walk = BatchStatsWalk if block.batch_stats else FrozenWalk
    with as_it_was(PRECISION, method.precision):
        return walk(method, block, saved, identity, needs).run(dout)
