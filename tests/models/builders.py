"""The ten builders, as pytest parameters; the deep and wide ones are slow."""

from __future__ import annotations

import pytest

SMALL = ["resnet18", "resnet34", "resnet50", "resnext50_32x4d"]
LARGE = [
    "resnet101",
    "resnet152",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "wide_resnet50_2",
    "wide_resnet101_2",
]

ALL = [*SMALL, *LARGE]
LARGE_SLOW = [*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)]
