"""What a plan tells blocks apart by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

#: A layer's filters and walk: K, C / groups, R, S, stride, padding and dilation (two each), groups.
LayerShape = tuple[int, ...]


class Block(NamedTuple):
    """A block with everything that its speed depends on, as plain values; ``str()`` of it is a plan's key.

    ``mode`` is "train" (batch statistics), "infer" (running ones, no gradient) or "frozen" (running ones,
    with gradients). ``dtype`` is what is computed in, after "autocast" where that casts. ``layout`` is the
    input's. ``threads`` is 0 where the CPU's do not count. The last three are switches, as they were set.
    """

    kind: str
    x: tuple[int, ...]
    layers: tuple[LayerShape, ...]
    skip: bool
    mode: str
    dtype: str
    layout: str
    threads: int
    backend: str = "auto"
    precision: str = "default"
    memory: str = "save"

    def __str__(self) -> str:
        threads = f", {self.threads} thread{'s' * (self.threads != 1)}" if self.threads else ""
        switches = [f"backend {self.backend}"] if self.backend != "auto" else []
        switches += [f"precision {self.precision}"] if self.precision != "default" else []
        switches += [f"memory {self.memory}"] if self.memory != "save" else []
        ending = "".join(f", {switch}" for switch in switches)
        return (
            f"{self.kind} {_by(self.x)}: {self.structure}; "
            f"{self.mode}, {self.dtype}, {self.layout}{threads}{ending}"
        )

    @property
    def compute_dtype(self) -> torch.dtype:
        """What is computed in: autocast's dtype where that casts."""
        dtype: torch.dtype = getattr(torch, self.dtype.rpartition(" ")[2])
        return dtype

    @property
    def structure(self) -> str:
        """The layers in words, the skip's last: ``64x64x1x1, 64x64x3x3 padding 1, skip 256x64x1x1``."""
        words = [_layer(layer) for layer in self.layers]
        if self.skip:
            words[-1] = f"skip {words[-1]}"
        return ", ".join(words)


def _by(numbers: Sequence[int]) -> str:
    return "x".join(map(str, numbers))


def _layer(layer: LayerShape) -> str:
    words = [_by(layer[:4])]
    walk = (("stride", layer[4:6], 1), ("padding", layer[6:8], 0), ("dilation", layer[8:10], 1))
    for name, pair, usual in walk:
        if pair != (usual, usual):
            words.append(f"{name} {pair[0] if pair[0] == pair[1] else _by(pair)}")
    if layer[10] != 1:
        words.append(f"groups {layer[10]}")
    return " ".join(words)
