import torch

import fusedres.ops
from tests._parity import assert_same_bits
from tests.ops._rules import Bad, Inputs, KernelRules
from tests.ops.shapes import CONV_SHAPES, FEW_CONV_SHAPES, ConvShape


class TestConvWgrad(KernelRules):
    op = "conv_wgrad"
    outputs = ("dw",)
    shapes = CONV_SHAPES
    few_shapes = FEW_CONV_SHAPES
    variants = ("full", "no_input_affine", "frozen", "alone", "channels_last")
    vectors = frozenset({"in_s", "in_t", "p", "q", "r"})
    bad = (
        Bad(
            "w_shape",
            lambda i: {"w_shape": (6, 10)},
            ValueError,
            r"`w_shape` must have 4 entries; got \(6, 10\)",
        ),
        Bad(
            "dz",
            lambda i: {"dz": i["dz"][:1]},
            ValueError,
            r"conv_wgrad: `dz` must have shape \(2, 6, 7, 5\)",
        ),
        Bad(
            "dz_dtype",
            lambda i: {"dz": i["dz"].half()},
            TypeError,
            "`dz` must be torch.float32; got torch.float16",
        ),
        Bad(
            "channels",
            lambda i: {"w_shape": (6, 8, 3, 3)},
            ValueError,
            "must have 10 = C / groups input channels",
        ),
        Bad(
            "half_an_affine",
            lambda i: {"in_t": None},
            ValueError,
            "`in_s`, `in_t` go together; got only `in_s`",
        ),
        Bad("half_a_bn", lambda i: {"y": None}, ValueError, "`y`, `q`, `r` go together; got only `q`, `r`"),
        Bad("no_p", lambda i: {"p": None}, ValueError, "`p` must be given with `q` and `r`; got p=None"),
        Bad(
            "in_s", lambda i: {"in_s": i["q"], "in_t": i["q"]}, ValueError, r"`in_s` must have shape \(10,\)"
        ),
        Bad("q", lambda i: {"q": i["in_s"]}, ValueError, r"`q` must have shape \(6,\); got \(10,\)"),
    )

    def inputs(self, shape: ConvShape, variant: str) -> Inputs:
        def some(given: bool, *size: int) -> torch.Tensor | None:
            return torch.randn(size).double() if given else None

        full = variant in ("full", "channels_last")
        bn = full or variant == "no_input_affine"
        return {
            "x": torch.randn(shape.x).double(),
            "dz": torch.randn(shape.y).double(),
            "in_s": some(full, shape.c),
            "in_t": some(full, shape.c),
            "y": some(bn, *shape.y),
            "p": some(variant != "alone", shape.k),
            "q": some(bn, shape.k),
            "r": some(bn, shape.k),
            "w_shape": shape.weight,
            "channels_last": variant == "channels_last",
            **shape.conv,
        }

    def test_lies_as_asked(self, backend: str, device: torch.device) -> None:
        """The same bits in either layout; sized as in ResNet, so that pixels are split and reduced."""
        x, dz = torch.randn(2, 8, 40, 40, device=device), torch.randn(2, 16, 40, 40, device=device)
        given = {"x": x, "dz": dz, "w_shape": (16, 8, 3, 3), "padding": 1, "backend": backend}
        plain = fusedres.ops.conv_wgrad(**given)
        nhwc = fusedres.ops.conv_wgrad(**given, channels_last=True)
        assert plain.is_contiguous()
        assert nhwc.is_contiguous(memory_format=torch.channels_last)
        assert_same_bits(nhwc, plain, "channels_last dw")
