"""The backward of :mod:`fusedres.ops._residual`: from the join's gradient to every operand's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from torch import Tensor

from fusedres._settings import PRECISION, as_it_was
from fusedres.ops._registry import kernel
from fusedres.ops._residual import (
    Block,
    Layer,
    Method,
    Statistics,
    activate,
    library_conv,
    library_conv_backward,
    recomputes_last,
)

#: p, q and r: a layer's dy = p·dz + q·y + r.
Coefficients: TypeAlias = tuple[Tensor, Tensor, Tensor]


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


def backward(
    method: Method, block: Block, dout: Tensor, saved: Saved, identity: bool, needs: Needs
) -> Gradients:
    """Every gradient of a block that ``needs`` asks for.

    ``identity`` says that the skip is the block's own input, so that the join's gradient is added to dx.
    """
    kind = _BatchStats if block.batch_stats else _Frozen
    with as_it_was(PRECISION, method.precision):
        return kind(method, block, saved, identity, needs).run(dout)


class _Backward:
    """What both modes share: operands at hand, and the walk from the join back to the input."""

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

    def keep_bn(self, i: int, layer: Layer, dgamma: Tensor, dbeta: Tensor) -> None:
        if self.needs.bn[i]:
            self.grads.gamma[i] = dgamma if layer.gamma is None else dgamma.to(layer.gamma.dtype)
            self.grads.beta[i] = dbeta if layer.beta is None else dbeta.to(layer.beta.dtype)


class _BatchStats(_Backward):
    def run(self, dout: Tensor) -> Gradients:
        ys = self._ys()
        end = len(self.block.chain) - 1
        stats = self.saved.statistics[end]
        skip_bn = self.block.downsample is not None
        y_skip = ys[self.skip] if skip_bn else None
        skip_stats = self.saved.statistics[self.skip] if skip_bn else None
        # A join is masked by its output, which the next block keeps anyway; a lone layer by its own y.
        own_mask = self.block.relu and self.saved.out is None
        dz, sums, sums_skip = self.kernel("bn_act_bwd_reduce")(
            dout,
            self.saved.out if self.block.relu else None,
            ys[end],
            stats.scale if own_mask else None,
            stats.shift if own_mask else None,
            stats.mean,
            stats.invstd,
            y_skip,
            skip_stats.mean if skip_stats else None,
            skip_stats.invstd if skip_stats else None,
        )
        if not self.block.relu:
            dz = dout
        join = dz
        if self.needs.residual and self.block.relu:
            self.grads.residual = join
        coefficients = self._finalize(end, sums, ys[end])
        skip_coefficients = self._finalize(self.skip, sums_skip, y_skip) if y_skip is not None else None
        if self.method.composition == "mainloop":
            self._walk_mainloop(ys, dz, join, coefficients, skip_coefficients)
        else:
            self._walk_materialised(ys, dz, join, coefficients, skip_coefficients)
        return self.grads

    def _ys(self) -> list[Tensor]:
        """Each layer's raw output; the last of the chain is formed again where it was not kept."""
        ys = list(self.saved.kept)
        if recomputes_last(self.method, self.block):
            end = len(self.block.chain) - 1
            layer = self.block.chain[end]
            affine = self.saved.statistics[end - 1].affine
            if self.method.composition == "mainloop":
                y, *_ = self.kernel("conv_stats")(ys[end - 1], layer.weight, *affine, *layer.geometry)
            elif self.method.composition == "stats":
                y, *_ = self.kernel("conv_stats")(
                    activate(self.method, ys[end - 1], affine), layer.weight, None, None, *layer.geometry
                )
            else:
                y = library_conv(activate(self.method, ys[end - 1], affine), layer.weight, layer.geometry)
            ys.insert(end, y)
        return ys

    def _finalize(self, i: int, sums: Tensor, y: Tensor) -> Coefficients:
        layer, stats = self.block.layers[i], self.saved.statistics[i]
        values = y.shape[0] * y.shape[2] * y.shape[3]
        dgamma, dbeta, p, q, r = self.kernel("bn_bwd_finalize")(
            sums, layer.gamma, stats.mean, stats.invstd, values, False
        )
        self.keep_bn(i, layer, dgamma, dbeta)
        return p, q, r

    def _walk_mainloop(
        self,
        ys: list[Tensor],
        dz: Tensor,
        join: Tensor,
        coefficients: Coefficients,
        skip_coefficients: Coefficients | None,
    ) -> None:
        """dy is formed as it is loaded; masks and sums come out of dgrad's epilogue."""
        x, needs, statistics = self.saved.x, self.needs, self.saved.statistics
        add = join if self.identity else None
        for i in reversed(range(len(self.block.chain))):
            layer = self.block.chain[i]
            source = ys[i - 1] if i else x
            affine = statistics[i - 1].affine if i else (None, None)
            if needs.weight[i]:
                self.grads.weight[i] = self.kernel("conv_wgrad")(
                    source, dz, *affine, ys[i], *coefficients, layer.weight.shape, *layer.geometry
                )
            if not needs.before(i):
                break
            prev: tuple[Tensor | None, ...] = (None,) * 5
            if i:
                before = statistics[i - 1]
                prev = (ys[i - 1], *before.affine, before.mean, before.invstd)
            dz, sums = self.kernel("conv_dgrad")(
                dz,
                layer.weight,
                ys[i],
                *coefficients,
                None if i else add,
                *prev,
                source.shape,
                *layer.geometry,
            )
            if i:
                coefficients = self._finalize(i - 1, sums, ys[i - 1])
            else:
                self.grads.x = dz
        if self.block.downsample is not None and skip_coefficients is not None:
            layer = self.block.downsample
            if needs.weight[self.skip]:
                self.grads.weight[self.skip] = self.kernel("conv_wgrad")(
                    x,
                    join,
                    None,
                    None,
                    ys[self.skip],
                    *skip_coefficients,
                    layer.weight.shape,
                    *layer.geometry,
                )
            if needs.x:
                self.grads.x, _ = self.kernel("conv_dgrad")(
                    join, layer.weight, ys[self.skip], *skip_coefficients, self.grads.x, *(None,) * 5,
                    x.shape, *layer.geometry,
                )  # fmt: skip

    def _walk_materialised(
        self,
        ys: list[Tensor],
        dz: Tensor,
        join: Tensor,
        coefficients: Coefficients,
        skip_coefficients: Coefficients | None,
    ) -> None:
        """dy is written out, the inputs are activated again, one plain dgrad and wgrad a layer."""
        x, needs, statistics = self.saved.x, self.needs, self.saved.statistics
        end = len(self.block.chain) - 1
        skip = self.block.downsample
        second: tuple[Tensor | None, ...] = (None,) * 4
        if skip_coefficients is not None:
            second = (ys[self.skip], *skip_coefficients)
        dy_skip: Tensor | None = None
        for i in reversed(range(end + 1)):
            layer = self.block.chain[i]
            if not (needs.weight[i] or needs.before(i) or (i == end and skip is not None)):
                break
            branch = second if i == end else (None,) * 4
            dy, dy_branch = self.kernel("bn_act_bwd_apply")(dz, ys[i], *coefficients, *branch)
            dy_skip = dy_branch if i == end else dy_skip
            source, before = (ys[i - 1], statistics[i - 1]) if i else (x, None)
            add = join if self.identity and i == 0 else None
            dx, sums = self._conv_backward(i, layer, dy, source, before, add, needs.before(i))
            if dx is None:
                break
            if sums is not None:
                dz, coefficients = dx, self._finalize(i - 1, sums, source)
            else:
                self.grads.x = dx
        if skip is not None and dy_skip is not None:
            dx, _ = self._conv_backward(self.skip, skip, dy_skip, x, None, self.grads.x, needs.x)
            self.grads.x = dx if needs.x else None

    def _conv_backward(
        self,
        i: int,
        layer: Layer,
        dy: Tensor,
        source: Tensor,
        before: Statistics | None,
        add: Tensor | None,
        need_dx: bool,
    ) -> tuple[Tensor | None, Tensor | None]:
        """The weight's gradient, kept; and dgrad + ``add``, returned.

        ``before`` are the statistics of the BatchNorm whose raw input ``source`` is: wgrad activates it, and
        dgrad goes on through its ReLU to dz and its sums.
        """
        if self.method.composition == "pointwise":
            return self._library_backward(i, layer, dy, source, before, add, need_dx)
        if self.needs.weight[i]:
            affine = before.affine if before is not None else (None, None)
            self.grads.weight[i] = self.kernel("conv_wgrad")(
                source, dy, *affine, *(None,) * 4, layer.weight.shape, *layer.geometry
            )
        if not need_dx:
            return None, None
        prev: tuple[Tensor | None, ...] = (None,) * 5
        if before is not None:
            prev = (source, *before.affine, before.mean, before.invstd)
        dx, sums = self.kernel("conv_dgrad")(
            dy, layer.weight, *(None,) * 4, add, *prev, source.shape, *layer.geometry
        )
        return dx, sums if before is not None else None

    def _library_backward(
        self,
        i: int,
        layer: Layer,
        dy: Tensor,
        source: Tensor,
        before: Statistics | None,
        add: Tensor | None,
        need_dx: bool,
    ) -> tuple[Tensor | None, Tensor | None]:
        """:meth:`_conv_backward` by the library's convolution, with passes of their own around it."""
        need_dw = self.needs.weight[i]
        if not (need_dx or need_dw):
            return None, None
        activated = source
        if before is not None and need_dw:
            activated = activate(self.method, source, before.affine)
        dx, dw = library_conv_backward(dy, activated, layer.weight, layer.geometry, need_dx, need_dw)
        if dw is not None:
            self.grads.weight[i] = dw
        if dx is None or before is None:
            return (dx if dx is None or add is None else dx.add_(add)), None
        dz, sums, _ = self.kernel("bn_act_bwd_reduce")(
            dx, None, source, *before.affine, before.mean, before.invstd, None, None, None
        )
        return dz, sums


class _Frozen(_Backward):
    """Frozen BatchNorm keeps no y: with G = wgrad(x, dz), dw = scale·G, dβ = Σdz and
    dγ = invstd·(⟨w, G⟩ per channel − mean·Σdz)."""

    def run(self, dout: Tensor) -> Gradients:
        x, needs = self.saved.x, self.needs
        out = self.saved.out if self.block.relu else None
        dz, sums, _ = self.kernel("bn_act_bwd_reduce")(dout, out, *(None,) * 8)
        join = dz = dz if self.block.relu else dout
        if needs.residual and self.block.relu:
            self.grads.residual = join
        add = join if self.identity else None
        sources = [x, *self.saved.kept]
        if self.block.downsample is not None:
            self._layer(self.skip, self.block.downsample, x, join, sums)
            if needs.x:
                add = self._dgrad(self.skip, self.block.downsample, join, x, None, None)[0]
        for i in reversed(range(len(self.block.chain))):
            layer = self.block.chain[i]
            self._layer(i, layer, sources[i], dz, sums)
            if not needs.before(i):
                break
            dz, sums = self._dgrad(i, layer, dz, sources[i], None if i else add, sources[i] if i else None)
            if i == 0:
                self.grads.x = dz
        return self.grads

    def _dgrad(
        self, i: int, layer: Layer, dz: Tensor, source: Tensor, add: Tensor | None, prev: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        scale = self.saved.statistics[i].scale
        dx, sums = self.kernel("conv_dgrad")(
            dz, layer.weight, None, scale, None, None, add, prev, *(None,) * 4, source.shape, *layer.geometry
        )
        return dx, sums

    def _layer(self, i: int, layer: Layer, source: Tensor, dz: Tensor, sums: Tensor) -> None:
        """dw, dγ and dβ of one layer."""
        if not self.needs.layer(i):
            return
        stats = self.saved.statistics[i]
        g = self.kernel("conv_wgrad")(source, dz, *(None,) * 6, layer.weight.shape, *layer.geometry)
        wide = g.to(stats.scale.dtype)
        if self.needs.weight[i]:
            self.grads.weight[i] = (wide * stats.scale.view(-1, 1, 1, 1)).to(layer.weight.dtype)
        if self.needs.bn[i]:
            inner = (layer.weight.to(wide.dtype) * wide).sum((1, 2, 3))
            self.keep_bn(i, layer, stats.invstd * (inner - stats.mean * sums[0]), sums[0].clone())
