"""ResNet-50's convolutions at 224 × 224 that differ in shape, each named after the first that has it."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any


@dataclass(frozen=True)
class Layer:
    """One convolution: (C, H, H) in, (K, H / stride, H / stride) out."""

    name: str
    channels: int
    size: int
    filters: int
    kernel: int
    stride: int = 1

    def __str__(self) -> str:
        stride = f"/{self.stride}" if self.stride > 1 else ""
        return f"{self.name} {self.channels}x{self.size}x{self.size} {self.kernel}x{self.kernel}{stride}"

    @property
    def padding(self) -> int:
        return self.kernel // 2

    @property
    def out_size(self) -> int:
        return self.size // self.stride

    @property
    def geometry(self) -> dict[str, Any]:
        return {"stride": self.stride, "padding": self.padding}

    @property
    def w_shape(self) -> tuple[int, int, int, int]:
        return self.filters, self.channels, self.kernel, self.kernel

    def in_shape(self, batch: int) -> tuple[int, int, int, int]:
        return batch, self.channels, self.size, self.size

    def out_shape(self, batch: int) -> tuple[int, int, int, int]:
        return batch, self.filters, self.out_size, self.out_size

    def flops(self, batch: int) -> int:
        """Operations of one pass of the convolution; a multiply and an add are two."""
        outputs = batch * self.filters * self.out_size**2
        return 2 * outputs * self.channels * self.kernel**2


@dataclass(frozen=True)
class Block:
    """One bottleneck: (C, H, H) in, ``width`` channels inside, 4 · width out."""

    name: str
    channels: int
    size: int
    width: int
    stride: int = 1

    def __str__(self) -> str:
        return f"{self.name} {self.channels}x{self.size}x{self.size} {self.width}"

    @property
    def convs(self) -> tuple[Layer, ...]:
        """conv1, conv2, conv3 and, where the shape changes, the downsample."""
        inner, out = self.size // self.stride, 4 * self.width
        convs = (
            Layer(f"{self.name}.conv1", self.channels, self.size, self.width, 1),
            Layer(f"{self.name}.conv2", self.width, self.size, self.width, 3, self.stride),
            Layer(f"{self.name}.conv3", self.width, inner, out, 1),
        )
        if self.channels == out and self.stride == 1:
            return convs
        return (*convs, Layer(f"{self.name}.downsample.0", self.channels, self.size, out, 1, self.stride))


STEM = Layer("conv1", 3, 224, 64, 7, 2)

BLOCKS = (
    Block("layer1.0", 64, 56, 64),
    Block("layer1.1", 256, 56, 64),
    Block("layer2.0", 256, 56, 128, 2),
    Block("layer2.1", 512, 28, 128),
    Block("layer3.0", 512, 28, 256, 2),
    Block("layer3.1", 1024, 14, 256),
    Block("layer4.0", 1024, 14, 512, 2),
    Block("layer4.1", 2048, 7, 512),
)


def _distinct() -> tuple[Layer, ...]:
    seen: dict[tuple[int, ...], Layer] = {}
    for layer in (STEM, *(conv for block in BLOCKS for conv in block.convs)):
        seen.setdefault((layer.channels, layer.size, layer.filters, layer.kernel, layer.stride), layer)
    return tuple(seen.values())


LAYERS = _distinct()

#: A 3×3 and a 1×1 from each end of the network: what a run times unless it is told otherwise.
USUAL = (
    "layer1.0.conv2",
    "layer1.0.conv3",
    "layer4.1.conv1",
    "layer4.1.conv2",
    "layer1.1",
    "layer4.1",
    "conv1",
)


def named(pattern: str | None, shapes: tuple[Layer, ...] | tuple[Block, ...]) -> list[Layer | Block]:
    """The shapes whose names, or whose block's, match a glob; those of :data:`USUAL` without one."""
    if pattern is None:
        return [shape for shape in shapes if shape.name in USUAL]
    return [s for s in shapes if fnmatch(s.name, pattern) or fnmatch(s.name, f"{pattern}.*")]
