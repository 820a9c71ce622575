import pytest
import torch
from torch import Tensor

import fusedres.ops
from tests.ops._rules import Bad, Inputs, KernelRules, added
from tests.ops.shapes import FEW_MAP_SHAPES, MAP_SHAPES, MapShape

#: variant: the groups of arguments that are given
GIVEN = {
    "join_of_two": ("out", "y", "y2"),
    "join": ("out", "y"),
    "inner": ("y", "mask"),
    "no_relu": ("y",),
    "no_relu_of_two": ("y", "y2"),
    "frozen": ("out",),
    "frozen_no_relu": (),
}


class TestBnActBwdReduce(KernelRules):
    op = "bn_act_bwd_reduce"
    outputs = ("dz", "sums", "sums2")
    shapes = MAP_SHAPES
    few_shapes = FEW_MAP_SHAPES
    variants = tuple(GIVEN)
    vectors = frozenset({"s", "t", "mean", "invstd", "mean2", "invstd2"})
    bad = (
        Bad(
            "rank",
            lambda i: {"dout": i["dout"][0]},
            ValueError,
            "bn_act_bwd_reduce: `dout` must have 4 dimensions",
        ),
        Bad("out", lambda i: {"out": i["out"][:1]}, ValueError, r"`out` must have shape \(2, 10, 7, 5\)"),
        Bad(
            "y_dtype",
            lambda i: {"y": i["y"].half()},
            TypeError,
            "`y` must be torch.float32; got torch.float16",
        ),
        Bad("half_a_mask", lambda i: {"s": i["mean"]}, ValueError, "`s`, `t` go together; got only `s`"),
        Bad(
            "y_alone",
            lambda i: {"mean": None},
            ValueError,
            "`y`, `mean`, `invstd` go together; got only `y`, `invstd`",
        ),
        Bad("y2_alone", lambda i: {"invstd2": None}, ValueError, "go together; got only `y2`, `mean2`"),
        Bad(
            "mask_of_nothing",
            lambda i: {"s": i["mean"], "t": i["mean"], "y": None, "mean": None, "invstd": None},
            ValueError,
            "form the mask from `y`, which must then be given; got y=None",
        ),
        Bad("mean2", lambda i: {"mean2": i["mean2"][1:]}, ValueError, r"`mean2` must have shape \(10,\)"),
    )

    def observe(self, outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        dz, *sums = outputs
        return dz, *map(added, sums)

    def inputs(self, shape: MapShape, variant: str) -> Inputs:
        given = GIVEN[variant]
        vector = lambda part: torch.randn(shape.c).double() if part in given else None  # noqa: E731
        positive = lambda part: torch.rand(shape.c).double() + 0.5 if part in given else None  # noqa: E731
        a_map = lambda part: torch.randn(shape.x).double() if part in given else None  # noqa: E731
        return {
            "dout": torch.randn(shape.x).double(),
            "out": torch.randn(shape.x).double().relu() if "out" in given else None,
            "y": a_map("y"),
            "s": vector("mask"),
            "t": vector("mask"),
            "mean": vector("y"),
            "invstd": positive("y"),
            "y2": a_map("y2"),
            "mean2": vector("y2"),
            "invstd2": positive("y2"),
        }

    @pytest.mark.parametrize("variant", GIVEN)
    def test_dz_is_the_masked_gradient_exactly(
        self, variant: str, backend: str, device: torch.device
    ) -> None:
        inputs = self.made(self.odd()._replace(variant=variant), torch.bfloat16, device)
        dz, _, sums2 = self.call(inputs, backend)
        assert torch.equal(dz, self.plain(inputs)[0])
        assert (sums2.numel() == 0) == ("y2" not in GIVEN[variant])

    def test_a_zero_is_masked(self, backend: str, device: torch.device) -> None:
        """ReLU's gradient at 0 is 0, as torch's, also where the affine rounds to 0 in bf16."""
        zero, one = torch.zeros(1, 1, 1, 1, device=device), torch.ones(1, device=device)
        dz, sums, _ = fusedres.ops.bn_act_bwd_reduce(zero + 1, zero, backend=backend)
        assert dz.item() == 0 and (sums == 0).all()
        y = zero.bfloat16()
        underflow = torch.full((1,), 1e-41, device=device)  # not 0 in fp32; 0 in bf16
        dz, *_ = fusedres.ops.bn_act_bwd_reduce(y + 1, None, y, one, underflow, one, one, backend=backend)
        assert dz.item() == 0
