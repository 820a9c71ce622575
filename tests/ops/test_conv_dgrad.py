import pytest
import torch
from torch import Tensor

import fusedres.ops
from tests.ops._rules import Bad, Inputs, KernelRules, added
from tests.ops.shapes import CONV_SHAPES, FEW_CONV_SHAPES, ConvShape

#: variant: the groups of arguments that are given
GIVEN = {
    "full": ("p", "bn", "add", "prev", "affine", "statistics"),
    "inner": ("p", "bn", "prev", "affine", "statistics"),
    "block_input": ("p", "bn", "add"),
    "frozen": ("p", "prev"),
    "frozen_full": ("p", "add", "prev", "affine", "statistics"),
    "saved_activation": ("p", "bn", "prev", "statistics"),
    "alone": (),
}


class TestConvDgrad(KernelRules):
    op = "conv_dgrad"
    outputs = ("dx", "sums")
    shapes = CONV_SHAPES
    few_shapes = FEW_CONV_SHAPES
    variants = tuple(GIVEN)
    vectors = frozenset({"p", "q", "r", "prev_s", "prev_t", "prev_mean", "prev_invstd"})
    bad = (
        Bad(
            "x_shape",
            lambda i: {"x_shape": (2, 10, 7)},
            ValueError,
            r"`x_shape` must have 4 entries; got \(2, 10, 7\)",
        ),
        Bad(
            "dz",
            lambda i: {"dz": i["dz"][:1]},
            ValueError,
            r"conv_dgrad: `dz` must have shape \(2, 6, 7, 5\)",
        ),
        Bad(
            "dz_dtype",
            lambda i: {"dz": i["dz"].half()},
            TypeError,
            "`dz` must be torch.float32; got torch.float16",
        ),
        Bad(
            "channels",
            lambda i: {"x_shape": (2, 8, 7, 5)},
            ValueError,
            "`w` must have 8 = C / groups input channels",
        ),
        Bad(
            "groups", lambda i: {"groups": 3}, ValueError, "`groups` must divide the 10 channels of `x_shape`"
        ),
        Bad("half_a_bn", lambda i: {"r": None}, ValueError, "`y`, `q`, `r` go together; got only `y`, `q`"),
        Bad("no_p", lambda i: {"p": None}, ValueError, "`p` must be given with `q` and `r`; got p=None"),
        Bad("add", lambda i: {"add": i["dz"]}, ValueError, r"`add` must have shape \(2, 10, 7, 5\)"),
        Bad("half_a_mask", lambda i: {"prev_t": None}, ValueError, "`prev_s`, `prev_t` go together"),
        Bad(
            "half_the_sums",
            lambda i: {"prev_mean": None},
            ValueError,
            "`prev_mean`, `prev_invstd` go together",
        ),
        Bad(
            "no_prev_y",
            lambda i: {"prev_y": None},
            ValueError,
            "`prev_y` must be given with `prev_s` or `prev_mean`",
        ),
        Bad(
            "prev_s",
            lambda i: {"prev_s": i["q"]},
            ValueError,
            r"`prev_s` must have shape \(10,\); got \(6,\)",
        ),
    )

    def observe(self, outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        dx, sums = outputs
        return dx, added(sums)

    def inputs(self, shape: ConvShape, variant: str) -> Inputs:
        given = GIVEN[variant]

        def some(part: str, *size: int) -> torch.Tensor | None:
            return torch.randn(size).double() if part in given else None

        fan = (shape.weight[0] // shape.groups) * shape.r**2
        return {
            "dz": torch.randn(shape.y).double(),
            "w": torch.randn(shape.weight).double() / fan**0.5,
            "y": some("bn", *shape.y),
            "p": some("p", shape.k),
            "q": some("bn", shape.k),
            "r": some("bn", shape.k),
            "add": some("add", *shape.x),
            "prev_y": some("prev", *shape.x),
            "prev_s": some("affine", shape.c),
            "prev_t": some("affine", shape.c),
            "prev_mean": some("statistics", shape.c),
            "prev_invstd": some("statistics", shape.c),
            "x_shape": shape.x,
            **shape.conv,
        }

    def test_pixels_no_window_reaches_get_zeros(self, backend: str, device: torch.device) -> None:
        """A 1×1 of stride 2 reads every fourth pixel; the others' gradient is 0, never what memory held."""
        dz = torch.ones(1, 8, 3, 3, device=device)
        w = torch.ones(8, 4, 1, 1, device=device)
        dx, _ = fusedres.ops.conv_dgrad(dz, w, x_shape=(1, 4, 6, 6), stride=2, backend=backend)
        assert (dx[:, :, ::2, ::2] == 8).all() and dx.sum() == 8 * 4 * 9

    @pytest.mark.parametrize("variant", GIVEN)
    def test_sums_are_asked_for_by_prev_y(self, variant: str, backend: str, device: torch.device) -> None:
        _, sums = self.call(self.made(self.odd()._replace(variant=variant), torch.float32, device), backend)
        assert added(sums).shape == ((2, 10) if "prev" in GIVEN[variant] else (0,))
        if "statistics" not in GIVEN[variant] and sums.numel():
            assert (sums[1::2] == 0).all()
