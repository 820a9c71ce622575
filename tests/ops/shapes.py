"""The awkward shapes every op must take, as data: each row says why it is there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ConvShape:
    """A convolution: x (n, c, h, w), w (k, c / groups, r, r)."""

    name: str
    why: str
    n: int
    c: int
    h: int
    w: int
    k: int
    r: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1

    def __str__(self) -> str:
        return self.name

    @property
    def x(self) -> tuple[int, int, int, int]:
        return self.n, self.c, self.h, self.w

    @property
    def weight(self) -> tuple[int, int, int, int]:
        return self.k, self.c // self.groups, self.r, self.r

    @property
    def y(self) -> tuple[int, int, int, int]:
        reach = self.dilation * (self.r - 1) + 1
        p, q = ((size + 2 * self.padding - reach) // self.stride + 1 for size in (self.h, self.w))
        return self.n, self.k, p, q

    @property
    def conv(self) -> dict[str, Any]:
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
        }


CONV_SHAPES = (
    ConvShape("pointwise", "a bottleneck's 1×1", n=2, c=16, h=8, w=8, k=32, r=1),
    ConvShape("odd", "H, W odd; channels no multiple of 8", n=2, c=10, h=7, w=5, k=6, r=3, padding=1),
    ConvShape("one_image", "N = 1", n=1, c=8, h=6, w=6, k=16, r=3, padding=1),
    ConvShape("empty", "N = 0", n=0, c=8, h=4, w=4, k=16, r=3, padding=1),
    ConvShape(
        "stride2", "a stage's first 3×3, odd size", n=2, c=16, h=9, w=9, k=24, r=3, stride=2, padding=1
    ),
    ConvShape(
        "downsample", "1×1 with stride 2: pixels nobody reads", n=2, c=16, h=8, w=7, k=32, r=1, stride=2
    ),
    ConvShape("dilated", "dilation 2", n=2, c=8, h=9, w=8, k=8, r=3, padding=2, dilation=2),
    ConvShape(
        "grouped", "groups of 4, as in ResNeXt 32x4d", n=2, c=24, h=7, w=7, k=24, r=3, padding=1, groups=6
    ),
    ConvShape("one_pixel", "1×1 spatial", n=3, c=16, h=1, w=1, k=8, r=1),
    ConvShape(
        "only_padding",
        "3×3 on one pixel: eight taps fall on padding",
        n=2,
        c=8,
        h=1,
        w=1,
        k=8,
        r=3,
        padding=1,
    ),
    ConvShape(
        "one_channel", "C = K = 1: strides do not tell the layout", n=2, c=1, h=5, w=4, k=1, r=3, padding=1
    ),
    ConvShape(
        "stem", "ResNet's 7×7 stride 2 on 3 channels", n=2, c=3, h=19, w=17, k=8, r=7, stride=2, padding=3
    ),
    ConvShape(
        "words", "a stem whose rows start at whole words", n=2, c=3, h=9, w=10, k=8, r=7, stride=2, padding=3
    ),
    ConvShape("many_tiles", "more pixels than one tile holds", n=3, c=8, h=31, w=29, k=24, r=1),
)

#: Shapes for the rules other than the numbers.
FEW_CONV_SHAPES = tuple(s for s in CONV_SHAPES if s.name in ("odd", "grouped", "one_channel", "many_tiles"))


@dataclass(frozen=True)
class MapShape:
    """An activation map (n, c, h, w)."""

    name: str
    why: str
    n: int
    c: int
    h: int
    w: int

    def __str__(self) -> str:
        return self.name

    @property
    def x(self) -> tuple[int, int, int, int]:
        return self.n, self.c, self.h, self.w


MAP_SHAPES = (
    MapShape("even", "nothing awkward", 2, 16, 8, 8),
    MapShape("odd", "H, W odd; channels no multiple of 8", 2, 10, 7, 5),
    MapShape("one_image", "N = 1", 1, 8, 6, 6),
    MapShape("empty", "N = 0", 0, 8, 4, 4),
    MapShape("one_pixel", "1×1 spatial", 3, 16, 1, 1),
    MapShape("one_channel", "C = 1: strides do not tell the layout", 2, 1, 5, 4),
    MapShape("three_channels", "fewer channels than a vector register", 2, 3, 9, 11),
    MapShape("prime", "channels one past a multiple of 32", 2, 97, 5, 3),
    MapShape("many_tiles", "more pixels than one tile holds", 3, 24, 31, 29),
)

FEW_MAP_SHAPES = tuple(s for s in MAP_SHAPES if s.name in ("odd", "one_channel", "prime", "many_tiles"))


@dataclass(frozen=True)
class BlockShape:
    """A residual block: x (n, c, h, w), m channels inside a bottleneck, k out."""

    name: str
    why: str
    n: int
    c: int
    h: int
    w: int
    k: int
    m: int = 0
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    downsample: bool = False

    def __str__(self) -> str:
        return self.name

    @property
    def x(self) -> tuple[int, int, int, int]:
        return self.n, self.c, self.h, self.w


BASIC_BLOCK_SHAPES = (
    BlockShape("even", "an identity block", 2, 16, 8, 8, 16),
    BlockShape("odd", "H, W odd; channels no multiple of 8; a downsample", 2, 6, 7, 5, 10, downsample=True),
    BlockShape("one_image", "N = 1", 1, 8, 6, 6, 8),
    BlockShape("empty", "N = 0", 0, 8, 6, 6, 8),
    BlockShape("stride2", "a stage's first block, odd size", 2, 8, 9, 7, 16, stride=2, downsample=True),
    BlockShape("one_pixel", "1×1 spatial: statistics over the batch alone", 12, 8, 1, 1, 8),
    BlockShape("many_tiles", "more pixels than one tile holds", 2, 8, 31, 29, 16, stride=2, downsample=True),
    BlockShape("tiny", "for gradcheck", 2, 2, 3, 3, 3, downsample=True),
)

BOTTLENECK_SHAPES = (
    BlockShape("even", "an identity block", 2, 32, 8, 8, 32, m=8),
    BlockShape(
        "odd", "H, W odd; channels no multiple of 8; a downsample", 2, 10, 7, 5, 14, m=6, downsample=True
    ),
    BlockShape("one_image", "N = 1", 1, 16, 6, 6, 16, m=8),
    BlockShape("empty", "N = 0", 0, 16, 6, 6, 16, m=8),
    BlockShape("stride2", "a stage's first block, odd size", 2, 8, 9, 7, 24, m=8, stride=2, downsample=True),
    BlockShape("dilated", "replace_stride_with_dilation", 2, 16, 9, 8, 16, m=8, dilation=2),
    BlockShape("grouped", "groups of 4, as in ResNeXt 32x4d", 2, 32, 7, 7, 32, m=24, groups=6),
    BlockShape("one_pixel", "1×1 spatial: statistics over the batch alone", 12, 16, 1, 1, 16, m=8),
    BlockShape(
        "many_tiles", "more pixels than one tile holds", 2, 8, 27, 25, 24, m=8, stride=2, downsample=True
    ),
    BlockShape("tiny", "for gradcheck", 2, 3, 3, 3, 4, m=2, downsample=True),
)

STEM_SHAPES = (
    ConvShape("even", "a small photograph", n=2, c=3, h=32, w=32, k=16, r=7, stride=2, padding=3),
    ConvShape(
        "odd",
        "every size odd; channels no multiple of 8",
        n=2,
        c=3,
        h=19,
        w=17,
        k=10,
        r=7,
        stride=2,
        padding=3,
    ),
    ConvShape("one_image", "N = 1", n=1, c=3, h=16, w=16, k=8, r=7, stride=2, padding=3),
    ConvShape("empty", "N = 0", n=0, c=3, h=16, w=16, k=8, r=7, stride=2, padding=3),
    ConvShape(
        "three_by_three",
        "a stem of 3×3 stride 1, as for small images",
        n=2,
        c=3,
        h=9,
        w=9,
        k=8,
        r=3,
        stride=1,
        padding=1,
    ),
    ConvShape(
        "one_pooled", "one window, part of it on padding", n=3, c=3, h=4, w=4, k=8, r=7, stride=2, padding=3
    ),
    ConvShape(
        "many_tiles", "more pixels than one tile holds", n=2, c=3, h=61, w=57, k=16, r=7, stride=2, padding=3
    ),
    ConvShape("tiny", "for gradcheck", n=2, c=1, h=6, w=6, k=2, r=3, stride=2, padding=1),
)
