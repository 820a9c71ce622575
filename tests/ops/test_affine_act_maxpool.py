import pytest
import torch
from torch import Tensor

import fusedres.ops
from tests import baselines
from tests._parity import assert_same_bits
from tests.ops._rules import Bad, Case, Inputs, KernelRules, added
from tests.ops.shapes import FEW_MAP_SHAPES, MAP_SHAPES, MapShape


def exact_map(shape: MapShape) -> dict[str, torch.Tensor]:
    """y, s and t whose affine is exact in bf16, so that no rounding decides a maximum, and ties abound."""
    return {
        "y": torch.randint(-16, 16, shape.x).double() / 4,
        "s": torch.tensor([-1.0, 0.5, 1.0, 2.0]).double()[torch.randint(4, (shape.c,))],
        "t": torch.randint(-4, 4, (shape.c,)).double() / 2,
    }


class TestAffineActMaxpool(KernelRules):
    op = "affine_act_maxpool"
    outputs = ("out", "index")
    shapes = MAP_SHAPES
    few_shapes = FEW_MAP_SHAPES
    vectors = frozenset({"s", "t"})
    bad = (
        Bad("rank", lambda i: {"y": i["y"][0]}, ValueError, "affine_act_maxpool: `y` must have 4 dimensions"),
        Bad("s", lambda i: {"s": i["s"][1:]}, ValueError, r"`s` must have shape \(10,\); got \(9,\)"),
        Bad("t", lambda i: {"t": i["t"].int()}, TypeError, "`t` must be a floating tensor; got torch.int32"),
    )

    def inputs(self, shape: MapShape, variant: str) -> Inputs:
        return exact_map(shape)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_index_is_the_first_maximum(
        self, case: Case, dtype: torch.dtype, backend: str, device: torch.device
    ) -> None:
        if case.shape.n == 0:
            pytest.skip("no windows")
        inputs = self.made(case, dtype, device)
        out, index = self.call(inputs, backend)
        expected, first = baselines.affine_act_maxpool(**inputs)
        assert index.dtype == torch.uint8 and index.max() < 9
        assert_same_bits(out, expected, "out")
        assert_same_bits(index, first, "index")

    def test_values_are_rounded_before_they_are_compared(self, backend: str, device: torch.device) -> None:
        """Two fp32 values that are one bf16 value tie, and the first wins, as when the map is written out."""
        y = torch.zeros(1, 1, 3, 3, dtype=torch.bfloat16, device=device)
        y[0, 0, 0, 1], y[0, 0, 1, 0] = 1.0, 1.0078125  # times 1/512: 1 + 0.00195 and 1 + 0.00197 in fp32
        s, t = torch.full((1,), 1 / 512, device=device), torch.ones(1, device=device)
        _, index = fusedres.ops.affine_act_maxpool(y, s, t, backend=backend)
        assert index[0, 0, 0, 0] == 4, "the window's first pixel inside the map"

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
    def test_nan_is_above_everything(self, dtype: torch.dtype, backend: str, device: torch.device) -> None:
        """Of several in a window the last is chosen, as torch does; -0 is no less than 0."""
        y = torch.randn(1, 8, 5, 5).to(dtype)
        y[0, :, 2, 2], y[0, :, 3, 3], y[0, 1, 3, 2], y[0, 0, 0] = torch.nan, torch.nan, torch.inf, -0.0
        y = y.to(device, memory_format=torch.channels_last)
        s, t = torch.ones(8, device=device), torch.full((8,), -0.0, device=device)
        out, index = fusedres.ops.affine_act_maxpool(y, s, t, backend=backend)
        expected, first = baselines.affine_act_maxpool(y, s, t)
        assert torch.equal(out.nan_to_num(7), expected.nan_to_num(7))
        assert_same_bits(index, first, "index")


class TestAffineActMaxpoolBwd(KernelRules):
    op = "affine_act_maxpool_bwd"
    outputs = ("dz", "sums")
    shapes = MAP_SHAPES
    few_shapes = FEW_MAP_SHAPES
    vectors = frozenset({"s", "t", "mean", "invstd"})
    bad = (
        Bad(
            "rank",
            lambda i: {"y": i["y"][0]},
            ValueError,
            "affine_act_maxpool_bwd: `y` must have 4 dimensions",
        ),
        Bad("dout", lambda i: {"dout": i["y"]}, ValueError, r"`dout` must have shape \(2, 10, 4, 3\)"),
        Bad("dout_dtype", lambda i: {"dout": i["dout"].half()}, TypeError, "`dout` must be torch.float32"),
        Bad(
            "index",
            lambda i: {"index": i["index"].long()},
            TypeError,
            "`index` must be torch.uint8; got torch.int64",
        ),
        Bad(
            "mean",
            lambda i: {"mean": i["mean"][1:]},
            ValueError,
            r"`mean` must have shape \(10,\); got \(9,\)",
        ),
    )

    def observe(self, outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        dz, sums = outputs
        return dz, added(sums)

    def inputs(self, shape: MapShape, variant: str) -> Inputs:
        made = exact_map(shape)
        if shape.n:
            out, index = baselines.affine_act_maxpool(**made)
        else:
            out, index = fusedres.ops.affine_act_maxpool(**made, backend="reference")
        return {
            "dout": torch.randn(out.shape).double(),
            "index": index,
            **made,
            "mean": torch.randn(shape.c).double(),
            "invstd": torch.rand(shape.c).double() + 0.5,
        }
