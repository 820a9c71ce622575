"""A block taken out of its model, run as it runs in there: forward, or forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from fusedres.ops._planned import CONVOLUTIONS, Choice, Convolution
from fusedres.plan._record import Seen, forced


class Sample:
    """A copy of a block, so that no statistics of the user's model move, with the input that it was given.

    ``convolutions`` is the table that it runs by, in place of the plan's. What is derived from its weights is
    derived once, for that table: another table takes another sample.
    """

    def __init__(self, seen: Seen, convolutions: dict[Convolution, str]) -> None:
        self.block = seen.block
        self.module = seen.module.standalone()  # type: ignore[operator]
        self.x = seen.x
        self.convolutions = convolutions
        self._dout: Tensor | None = None
        self._wrt = [p for p in self.module.parameters() if p.requires_grad]
        if self.x.requires_grad:
            self._wrt.append(self.x)

    def call(self, choice: Choice) -> Callable[[], object]:
        """A call that runs the block once by ``choice``."""
        return partial(self._run, choice)

    def _run(self, choice: Choice) -> None:
        with forced(choice), _trying(self.convolutions):
            if self.block.mode == "infer":
                with torch.no_grad():
                    self.module.forward(self.x)
                return
            out = self.module.forward(self.x)
            if self._wrt and out.requires_grad:
                if self._dout is None:
                    # Noise: BatchNorm's backward of a constant is rounding errors, denormals among them.
                    noise = torch.randn(out.shape, generator=torch.Generator().manual_seed(0))
                    self._dout = torch.empty_like(out).copy_(noise)
                torch.autograd.grad(out, self._wrt, self._dout)


@contextmanager
def _trying(convolutions: dict[Convolution, str]) -> Iterator[None]:
    before = dict(CONVOLUTIONS)
    _hold(convolutions)
    try:
        yield
    finally:
        _hold(before)


def _hold(convolutions: dict[Convolution, str]) -> None:
    if convolutions != CONVOLUTIONS:
        CONVOLUTIONS.clear()
        CONVOLUTIONS.update(convolutions)
