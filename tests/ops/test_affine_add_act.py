import torch

from tests.ops._rules import Bad, Inputs, KernelRules
from tests.ops.shapes import FEW_MAP_SHAPES, MAP_SHAPES, MapShape


class TestAffineAddAct(KernelRules):
    op = "affine_add_act"
    outputs = ("out",)
    shapes = MAP_SHAPES
    few_shapes = FEW_MAP_SHAPES
    variants = ("full", "identity", "alone", "no_relu", "identity_no_relu")
    vectors = frozenset({"sa", "ta", "sb", "tb"})
    bad = (
        Bad("rank", lambda i: {"a": i["a"][0]}, ValueError, "affine_add_act: `a` must have 4 dimensions"),
        Bad("b_shape", lambda i: {"b": i["b"][:1]}, ValueError, r"`b` must have shape \(2, 10, 7, 5\)"),
        Bad(
            "b_dtype",
            lambda i: {"b": i["b"].half()},
            TypeError,
            "`b` must be torch.float32; got torch.float16",
        ),
        Bad("b_device", lambda i: {"b": i["b"].to("meta")}, ValueError, "`b` must be on cpu; got meta"),
        Bad("half_an_affine", lambda i: {"tb": None}, ValueError, "`sb`, `tb` go together; got only `sb`"),
        Bad("affine_of_nothing", lambda i: {"b": None}, ValueError, "which must then be given; got b=None"),
        Bad(
            "sa", lambda i: {"sa": i["sa"][None]}, ValueError, r"`sa` must have shape \(10,\); got \(1, 10\)"
        ),
        Bad(
            "ta",
            lambda i: {"ta": i["ta"].bool()},
            TypeError,
            "`ta` must be a floating tensor; got torch.bool",
        ),
    )

    def inputs(self, shape: MapShape, variant: str) -> Inputs:
        both = variant in ("full", "no_relu")
        return {
            "a": torch.randn(shape.x).double(),
            "sa": torch.randn(shape.c).double(),
            "ta": torch.randn(shape.c).double(),
            "b": None if variant == "alone" else torch.randn(shape.x).double(),
            "sb": torch.randn(shape.c).double() if both else None,
            "tb": torch.randn(shape.c).double() if both else None,
            "relu": "no_relu" not in variant,
        }
