from dataclasses import dataclass

import torch

from tests.ops._rules import Bad, Inputs, KernelRules


@dataclass(frozen=True)
class BlockShape:
    """A bottleneck: x (n, c, h, w), m channels inside, k out."""

    name: str
    why: str
    n: int
    c: int
    h: int
    w: int
    m: int
    k: int
    stride: int = 1
    dilation: int = 1
    groups: int = 1

    def __str__(self) -> str:
        return self.name

    @property
    def x(self) -> tuple[int, int, int, int]:
        return self.n, self.c, self.h, self.w


BLOCK_SHAPES = (
    BlockShape("even", "nothing awkward", 2, 32, 8, 8, 8, 32),
    BlockShape("odd", "H, W odd; channels no multiple of 8", 2, 20, 7, 5, 6, 20),
    BlockShape("one_image", "N = 1", 1, 16, 6, 6, 8, 32),
    BlockShape("empty", "N = 0", 0, 16, 6, 6, 8, 16),
    BlockShape("stride2", "a stage's first block", 2, 16, 9, 7, 8, 32, stride=2),
    BlockShape("dilated", "dilation 2", 2, 16, 9, 8, 8, 16, dilation=2),
    BlockShape("grouped", "groups of 4, as in ResNeXt 32x4d", 2, 32, 7, 7, 24, 32, groups=6),
    BlockShape("one_pixel", "1×1 spatial", 2, 16, 1, 1, 8, 16),
)


class TestBottleneckInfer(KernelRules):
    op = "bottleneck_infer"
    outputs = ("out",)
    shapes = BLOCK_SHAPES
    few_shapes = tuple(s for s in BLOCK_SHAPES if s.name in ("odd", "grouped"))
    variants = ("as_shaped", "downsample")
    vectors = frozenset({a + b for a in "st" for b in "123d"})
    bad = (
        Bad("rank", lambda i: {"x": i["x"][0]}, ValueError, "bottleneck_infer: `x` must have 4 dimensions"),
        Bad(
            "w1",
            lambda i: {"w1": i["w1"][:, :4]},
            ValueError,
            "`w1` must have 20 = C / groups input channels",
        ),
        Bad(
            "w2", lambda i: {"w2": i["w2"][:, :4]}, ValueError, "`w2` must have 6 = C / groups input channels"
        ),
        Bad("w3_dtype", lambda i: {"w3": i["w3"].half()}, TypeError, "`w3` must have the dtype of `x`"),
        Bad("groups", lambda i: {"groups": 4}, ValueError, "`groups` must divide"),
        Bad("identity_stride", lambda i: {"stride": 2}, ValueError, "must have the block's output shape"),
        Bad(
            "half_a_downsample",
            lambda i: {"sd": i["s3"]},
            ValueError,
            "`wd`, `sd`, `td` go together; got only `sd`",
        ),
        Bad("s2", lambda i: {"s2": i["s3"]}, ValueError, r"`s2` must have shape \(6,\); got \(20,\)"),
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
        if variant == "downsample" or shape.c != shape.k or shape.stride != 1:
            convs.append(("d", (shape.k, shape.c, 1)))
        for name, size in convs:
            made["w" + name] = weight(*size)
            made["s" + name], made["t" + name] = torch.randn(2, size[0]).double()
        return {**made, "stride": shape.stride, "dilation": shape.dilation, "groups": shape.groups}
