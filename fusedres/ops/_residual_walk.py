"""What the backward of a residual block works with: who needs what, what was saved, what comes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from fusedres.ops._registry import kernel
from fusedres.ops._residual import Block, Layer, Method, Statistics
from fusedres.ops._shapes import prefers_channels_last


@dataclass(frozen=True)
class Needs:
    """Which gradients somebody asked for, layer by layer; what nobody needs is not computed."""

    x: bool
    residual: bool
    weight: Sequence[bool]
    bn: Sequence[bool]

    def layer(self, i: int) -> bool:
        return self.weight[i] or self.bn[i]

    def before(self, i: int) -> bool:
        """Whether the gradient must go on behind layer ``i`` of the chain."""
        return self.x or any(self.layer(j) for j in range(i))


@dataclass
class Gradients:
    x: Tensor | None = None
    residual: Tensor | None = None
    weight: dict[int, Tensor] = field(default_factory=dict)
    gamma: dict[int, Tensor] = field(default_factory=dict)
    beta: dict[int, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Saved:
    """What forward left: the input, the output where the mask needs it, kept tensors, statistics."""

    x: Tensor
    out: Tensor | None
    kept: Sequence[Tensor]
    statistics: Sequence[Statistics]


class Walk:
    """What the walks from the join back to the input share, whether BatchNorm is live or frozen."""

    def __init__(self, method: Method, block: Block, saved: Saved, identity: bool, needs: Needs) -> None:
        self.method = method
        self.block = block
        self.saved = saved
        self.identity = identity
        self.needs = needs
        self.grads = Gradients()
        self.skip = len(block.chain)  # the downsample's place in lists of layers

    def kernel(self, name: str) -> Any:
        return kernel(self.method.backend, name)

    def conv_wgrad(self, layer: Layer, x: Tensor, dz: Tensor, *formed: Tensor | None) -> Tensor:
        """The gradient of ``layer``'s weight, laid out as that is; ``formed``: the op's ``in_s`` and on."""
        absent = (None,) * (6 - len(formed))
        w = layer.weight
        dw: Tensor = self.kernel("conv_wgrad")(
            x, dz, *formed, *absent, w.shape, *layer.geometry, prefers_channels_last(w)
        )
        return dw

    def keep_bn(self, i: int, layer: Layer, dgamma: Tensor, dbeta: Tensor) -> None:
        if self.needs.bn[i]:
            self.grads.gamma[i] = dgamma if layer.gamma is None else dgamma.to(layer.gamma.dtype)
            self.grads.beta[i] = dbeta if layer.beta is None else dbeta.to(layer.beta.dtype)
