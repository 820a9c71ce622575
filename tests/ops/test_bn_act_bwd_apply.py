import torch

from tests.ops._rules import Bad, Inputs, KernelRules
from tests.ops.shapes import FEW_MAP_SHAPES, MAP_SHAPES, MapShape


class TestBnActBwdApply(KernelRules):
    op = "bn_act_bwd_apply"
    outputs = ("dy", "dy2")
    shapes = MAP_SHAPES
    few_shapes = FEW_MAP_SHAPES
    variants = ("two", "one")
    vectors = frozenset({"p", "q", "r", "p2", "q2", "r2"})
    bad = (
        Bad(
            "rank", lambda i: {"dz": i["dz"][0]}, ValueError, "bn_act_bwd_apply: `dz` must have 4 dimensions"
        ),
        Bad(
            "y",
            lambda i: {"y": i["y"][:1]},
            ValueError,
            r"`y` must have shape \(2, 10, 7, 5\); got \(1, 10, 7, 5\)",
        ),
        Bad("y2_dtype", lambda i: {"y2": i["y2"].half()}, TypeError, "`y2` must be torch.float32"),
        Bad("half_a_branch", lambda i: {"q2": None}, ValueError, "go together; got only `y2`, `p2`, `r2`"),
        Bad("p", lambda i: {"p": i["p"][1:]}, ValueError, r"`p` must have shape \(10,\); got \(9,\)"),
        Bad(
            "r2",
            lambda i: {"r2": i["r2"].int()},
            TypeError,
            "`r2` must be a floating tensor; got torch.int32",
        ),
    )

    def inputs(self, shape: MapShape, variant: str) -> Inputs:
        branches = ("", "2") if variant == "two" else ("",)
        made = {"dz": torch.randn(shape.x).double()}
        for branch in branches:
            made["y" + branch] = torch.randn(shape.x).double()
            made.update({c + branch: torch.randn(shape.c).double() for c in "pqr"})
        return made
