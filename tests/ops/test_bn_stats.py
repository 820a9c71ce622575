import pytest
import torch
from torch import Tensor

import fusedres.ops
from tests._parity import assert_within_two_x
from tests.ops._rules import Bad, Case, Inputs, KernelRules, merged, slack_of_merged
from tests.ops.shapes import FEW_MAP_SHAPES, MAP_SHAPES, MapShape


class TestBnStats(KernelRules):
    op = "bn_stats"
    outputs = ("mean", "var")
    shapes = MAP_SHAPES
    few_shapes = FEW_MAP_SHAPES
    bad = (
        Bad(
            "rank",
            lambda i: {"y": i["y"][0]},
            ValueError,
            r"bn_stats: `y` must have 4 dimensions.*\(10, 7, 5\)",
        ),
        Bad(
            "integers",
            lambda i: {"y": i["y"].int()},
            TypeError,
            "`y` must be a floating tensor; got torch.int32",
        ),
        Bad("not_a_tensor", lambda i: {"y": None}, TypeError, "`y` must be a tensor; got NoneType"),
    )

    def inputs(self, shape: MapShape, variant: str) -> Inputs:
        return {"y": torch.randn(shape.x).double() + torch.randn(shape.c)[:, None, None]}

    def observe(self, outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return merged(*outputs)

    def slack(self, name: str, ours: Tensor, ref: Tensor) -> float:
        return slack_of_merged(name, ours, ref)

    def test_tiles_cover_the_map(self, case: Case, backend: str, device: torch.device) -> None:
        inputs = self.made(case, torch.bfloat16, device)
        count, mean, m2 = self.call(inputs, backend)
        assert count.dtype == mean.dtype == m2.dtype == torch.float32
        assert mean.shape == m2.shape == (len(count), case.shape.c)
        assert count.sum() == inputs["y"].numel() // case.shape.c
        assert (count >= 0).all() and (m2 >= 0).all()

    @pytest.mark.parametrize("value", [100.0, 0.1, -3e4])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_constant_channel(
        self, value: float, dtype: torch.dtype, backend: str, device: torch.device
    ) -> None:
        """Variance exactly 0: Σx² − (Σx)² / n would give anything but."""
        y = torch.full((3, 20, 31, 29), value, dtype=dtype, device=device)
        count, mean, m2 = fusedres.ops.bn_stats(y, backend=backend)
        assert (m2 == 0).all() and (mean[count > 0] == y[0, 0, 0, 0].float()).all()
        mu, var, *_ = fusedres.ops.bn_finalize(count, mean, m2, backend=backend)
        assert (var == 0).all() and (mu == y[0, 0, 0, 0].float()).all()

    def test_large_mean(self, backend: str, device: torch.device) -> None:
        """A mean a thousand standard deviations from 0: where Σx² cancels, deviations do not.

        The tiles' fp32 means are off by eps / 2 · 1000 each, which moves Σ n_t (mean_t − mean)² / n, the
        variance between tiles, by at most eps · 1000 · max|mean_t − mean|, and by its square.
        """
        y = (torch.randn(4, 12, 23, 21, device=device) + 1000).contiguous(memory_format=torch.channels_last)
        tiles = self.call({"y": y}, backend)
        mean, var = self.observe(tiles)
        exact_var, exact_mean = torch.var_mean(y.double(), (0, 2, 3), correction=0)
        assert_within_two_x(mean, exact_mean, self.plain({"y": y})[0], "bn_stats of a large mean, mean")
        rounding = torch.finfo(torch.float32).eps * 1000
        spread = (tiles[1].double() - exact_mean).abs().amax(0)
        assert ((var - exact_var).abs() <= rounding * spread + rounding**2 + 1e-6 * exact_var).all()
