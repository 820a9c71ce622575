import torch

from tests.ops._rules import Bad, Inputs, KernelRules
from tests.ops.shapes import CONV_SHAPES, FEW_CONV_SHAPES, ConvShape


class TestConvAffineAct(KernelRules):
    op = "conv_affine_act"
    outputs = ("out",)
    shapes = CONV_SHAPES
    few_shapes = FEW_CONV_SHAPES
    variants = ("full", "no_affine", "no_scale", "no_shift", "no_residual", "no_relu", "conv_alone")
    vectors = frozenset({"scale", "shift"})
    bad = (
        Bad(
            "rank",
            lambda i: {"x": i["x"][0]},
            ValueError,
            r"conv_affine_act: `x` must have 4 dim.*\(10, 7, 5\)",
        ),
        Bad("not_a_tensor", lambda i: {"x": [1.0]}, TypeError, "`x` must be a tensor; got list"),
        Bad(
            "integers",
            lambda i: {"x": i["x"].int()},
            TypeError,
            "`x` must be a floating tensor; got torch.int32",
        ),
        Bad(
            "dtype_mix",
            lambda i: {"w": i["w"].double()},
            TypeError,
            "`w` must have the dtype of `x`.*float64",
        ),
        Bad(
            "device_mix",
            lambda i: {"w": i["w"].to("meta")},
            ValueError,
            "`w` must be on the device of `x`.*meta",
        ),
        Bad(
            "weight_rank", lambda i: {"w": i["w"][0]}, ValueError, r"`w` must have 4 dimensions.*\(10, 3, 3\)"
        ),
        Bad(
            "channels",
            lambda i: {"x": i["x"][:, :8]},
            ValueError,
            "`w` must have 8 = C / groups input channels",
        ),
        Bad("groups", lambda i: {"groups": 4}, ValueError, "`groups` must divide the 10 channels.*got 4"),
        Bad("no_groups", lambda i: {"groups": 0}, ValueError, "`groups` must divide.*got 0"),
        Bad("stride", lambda i: {"stride": 0}, ValueError, "`stride` must be at least 1; got 0"),
        Bad("padding", lambda i: {"padding": -1}, ValueError, "`padding` must be at least 0; got -1"),
        Bad("triple", lambda i: {"dilation": (1, 1, 1)}, ValueError, "`dilation` must be an int or a pair"),
        Bad("too_small", lambda i: {"dilation": 8}, ValueError, "smaller than the dilated kernel"),
        Bad(
            "scale",
            lambda i: {"scale": i["scale"][:4]},
            ValueError,
            r"`scale` must have shape \(6,\); got \(4,\)",
        ),
        Bad("shift", lambda i: {"shift": i["shift"].int()}, TypeError, "`shift` must be a floating tensor"),
        Bad(
            "residual",
            lambda i: {"residual": i["x"]},
            ValueError,
            r"`residual` must have shape \(2, 6, 7, 5\)",
        ),
        Bad(
            "residual_dtype",
            lambda i: {"residual": i["residual"].half()},
            TypeError,
            "`residual` must be torch.f",
        ),
    )

    def inputs(self, shape: ConvShape, variant: str) -> Inputs:
        alone = variant == "conv_alone"
        return {
            "x": torch.randn(shape.x).double(),
            "w": torch.randn(shape.weight).double() / (shape.weight[1] * shape.r**2) ** 0.5,
            "scale": None if alone or variant in ("no_affine", "no_scale") else torch.randn(shape.k).double(),
            "shift": None if alone or variant in ("no_affine", "no_shift") else torch.randn(shape.k).double(),
            "residual": None if alone or variant == "no_residual" else torch.randn(shape.y).double(),
            "relu": not alone and variant != "no_relu",
            **shape.conv,
        }
