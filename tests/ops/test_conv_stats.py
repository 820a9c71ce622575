import pytest
import torch
from torch import Tensor

import fusedres.ops
from tests.ops._rules import Bad, Case, Inputs, KernelRules, merged, slack_of_merged
from tests.ops.shapes import CONV_SHAPES, FEW_CONV_SHAPES, ConvShape


class TestConvStats(KernelRules):
    op = "conv_stats"
    outputs = ("y", "mean", "var")
    shapes = CONV_SHAPES
    few_shapes = FEW_CONV_SHAPES
    variants = ("full", "no_affine")
    vectors = frozenset({"in_scale", "in_shift"})
    bad = (
        Bad("rank", lambda i: {"x": i["x"][0]}, ValueError, "conv_stats: `x` must have 4 dimensions"),
        Bad("dtype_mix", lambda i: {"w": i["w"].double()}, TypeError, "`w` must have the dtype of `x`"),
        Bad(
            "channels",
            lambda i: {"w": i["w"][:, :4]},
            ValueError,
            r"`w` must have 10 = C / groups.*\(6, 4, 3, 3\)",
        ),
        Bad("half_an_affine", lambda i: {"in_shift": None}, ValueError, "go together; got only `in_scale`"),
        Bad(
            "in_scale",
            lambda i: {"in_scale": i["in_scale"][:6]},
            ValueError,
            r"`in_scale` must have shape \(10,\)",
        ),
        Bad(
            "in_shift",
            lambda i: {"in_shift": i["in_shift"].long()},
            TypeError,
            "`in_shift` must be a floating",
        ),
    )

    def inputs(self, shape: ConvShape, variant: str) -> Inputs:
        affine = variant == "full"
        return {
            "x": torch.randn(shape.x).double(),
            "w": torch.randn(shape.weight).double() / (shape.weight[1] * shape.r**2) ** 0.5,
            "in_scale": torch.randn(shape.c).double() if affine else None,
            "in_shift": torch.randn(shape.c).double() if affine else None,
            **shape.conv,
        }

    def observe(self, outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        y, *tiles = outputs
        return y, *merged(*tiles)

    def slack(self, name: str, ours: Tensor, ref: Tensor) -> float:
        return slack_of_merged(name, ours, ref)

    def test_tiles_cover_the_output(self, case: Case, backend: str, device: torch.device) -> None:
        y, count, mean, m2 = self.call(self.made(case, torch.bfloat16, device), backend)
        assert count.dtype == mean.dtype == m2.dtype == torch.float32
        assert mean.shape == m2.shape == (len(count), y.shape[1])
        assert count.sum() == y.numel() // y.shape[1]
        assert (count >= 0).all() and (m2 >= 0).all()

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_constant_channel(self, dtype: torch.dtype, backend: str, device: torch.device) -> None:
        x = torch.full((3, 4, 31, 29), 100.0, dtype=dtype, device=device)
        w = torch.eye(4, dtype=dtype, device=device)[:, :, None, None]
        y, count, mean, m2 = fusedres.ops.conv_stats(x, w, backend=backend)
        assert (y == 100).all() and (mean[count > 0] == 100).all() and (m2 == 0).all()

    def test_padding_stays_zero_after_the_affine(self, backend: str, device: torch.device) -> None:
        """relu(0 · s + t) is t inside the image, and 0 outside of it."""
        x = torch.zeros(1, 1, 3, 3, device=device)
        one = torch.ones(1, device=device)
        y, *_ = fusedres.ops.conv_stats(
            x, torch.ones(1, 1, 3, 3, device=device), one, one, padding=1, backend=backend
        )
        assert y[0, 0].tolist() == [[4, 6, 4], [6, 9, 6], [4, 6, 4]]
