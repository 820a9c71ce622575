"""The backward of a residual block whose BatchNorms were frozen: eval mode, FrozenBatchNorm2d."""

from __future__ import annotations

from torch import Tensor

from fusedres.ops._residual import Layer
from fusedres.ops._residual_walk import Gradients, Walk


class FrozenWalk(Walk):
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
        g = self.conv_wgrad(layer, source, dz)
        wide = g.to(stats.scale.dtype)
        if self.needs.weight[i]:
            self.grads.weight[i] = (wide * stats.scale.view(-1, 1, 1, 1)).to(layer.weight.dtype)
        if self.needs.bn[i]:
            inner = (layer.weight.to(wide.dtype) * wide).sum((1, 2, 3))
            total = sums[0::2].sum(0)  # of the parts' Σdz
            self.keep_bn(i, layer, stats.invstd * (inner - stats.mean * total), total)
