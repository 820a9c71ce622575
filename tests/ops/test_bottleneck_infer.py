import torch

from tests.ops._rules import Bad, Inputs, KernelRules
from tests.ops.shapes import BOTTLENECK_SHAPES, BlockShape


class TestBottleneckInfer(KernelRules):
    op = "bottleneck_infer"
    outputs = ("out",)
    shapes = BOTTLENECK_SHAPES
    few_shapes = tuple(s for s in BOTTLENECK_SHAPES if s.name in ("odd", "grouped"))
    vectors = frozenset({a + b for a in "st" for b in "123d"})
    bad = (
        Bad("rank", lambda i: {"x": i["x"][0]}, ValueError, "bottleneck_infer: `x` must have 4 dimensions"),
        Bad(
            "w1",
            lambda i: {"w1": i["w1"][:, :4]},
            ValueError,
            "`w1` must have 10 = C / groups input channels",
        ),
        Bad(
            "w2", lambda i: {"w2": i["w2"][:, :4]}, ValueError, "`w2` must have 6 = C / groups input channels"
        ),
        *(
            Bad(
                f"w{name}_size",
                lambda i, w=f"w{name}", size=4 - taps: {w: i[w][..., :1, :1].expand(-1, -1, size, size)},
                ValueError,
                rf"`w{name}` must have filters of size \({taps}, {taps}\)",
            )
            for name, taps in (("1", 1), ("2", 3), ("3", 1), ("d", 1))
        ),
        Bad("w3_dtype", lambda i: {"w3": i["w3"].half()}, TypeError, "`w3` must have the dtype of `x`"),
        Bad("groups", lambda i: {"groups": 4}, ValueError, "`groups` must divide"),
        Bad(
            "identity",
            lambda i: {"wd": None, "sd": None, "td": None},
            ValueError,
            "must have the block's output shape",
        ),
        Bad(
            "half_a_downsample",
            lambda i: {"sd": None},
            ValueError,
            "`wd`, `sd`, `td` go together; got only `wd`, `td`",
        ),
        Bad("s2", lambda i: {"s2": i["s3"]}, ValueError, r"`s2` must have shape \(6,\); got \(14,\)"),
    )

    def inputs(self, shape: BlockShape, variant: str) -> Inputs:
        def weight(k: int, c: int, r: int) -> torch.Tensor:
            return torch.randn(k, c, r, r).double() / (c * r * r) ** 0.5

        made: Inputs = {"x": torch.randn(shape.x).double()}
        convs = [
            ("1", (shape.m, shape.c, 1)),
            ("2", (shape.m, shape.m // shape.groups, 3)),
            ("3", (shape.k, shape.m, 1)),
        ]
        if shape.downsample:
            convs.append(("d", (shape.k, shape.c, 1)))
        for name, size in convs:
            made["w" + name] = weight(*size)
            made["s" + name], made["t" + name] = torch.randn(2, size[0]).double()
        return {**made, "stride": shape.stride, "dilation": shape.dilation, "groups": shape.groups}
