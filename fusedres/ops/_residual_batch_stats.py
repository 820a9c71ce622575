"""The backward of a residual block whose BatchNorms used the batch's own statistics."""

from __future__ import annotations

from typing import TypeAlias

from torch import Tensor

from fusedres.ops._residual import (
    Layer,
    Statistics,
    activate,
    library_conv,
    library_conv_backward,
    recomputes_last,
)
from fusedres.ops._residual_walk import Gradients, Walk

#: p, q and r: a layer's dy = p·dz + q·y + r.
Coefficients: TypeAlias = tuple[Tensor, Tensor, Tensor]


class BatchStatsWalk(Walk):
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
                self.grads.weight[i] = self.conv_wgrad(layer, source, dz, *affine, ys[i], *coefficients)
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
                self.grads.weight[self.skip] = self.conv_wgrad(
                    layer, x, join, None, None, ys[self.skip], *skip_coefficients
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
            self.grads.weight[i] = self.conv_wgrad(layer, source, dy, *affine)
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
