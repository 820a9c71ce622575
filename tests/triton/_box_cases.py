"""The convolutions' rules on shapes whose tiles are boxes, copied by tensor descriptors.

Run by test_boxes.py, in Triton's interpreter and on the stand-in device of compute capability 9.0.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from fusedres.backends.triton import _conv, _device
from tests.ops._rules import Case, Inputs, KernelRules
from tests.ops.shapes import ConvShape
from tests.ops.test_conv_affine_act import TestConvAffineAct as AffineAct
from tests.ops.test_conv_dgrad import TestConvDgrad as Dgrad
from tests.ops.test_conv_stats import TestConvStats as Stats

#: "odd" is the shape that every variant is tried with.
SHAPES = (
    ConvShape("odd", "over every edge; channels past a block", n=2, c=72, h=5, w=7, k=24, r=3, padding=1),
    ConvShape("dilated", "taps apart", n=2, c=32, h=7, w=8, k=24, r=3, padding=2, dilation=2),
    ConvShape("grouped", "groups of whole blocks", n=2, c=64, h=7, w=8, k=64, r=3, padding=1, groups=2),
    ConvShape("unpadded", "a result smaller than its source", n=2, c=24, h=9, w=10, k=32, r=3),
    ConvShape("padded_1x1", "a border of padding", n=2, c=32, h=6, w=6, k=16, r=1, padding=1),
    ConvShape("deep_1x1", "pixels as one row, the last tile not full", n=3, c=136, h=5, w=5, k=72, r=1),
)  # fmt: skip

if _device.INTERPRETED:
    _device.DEFAULT_FACTS = _device.DEFAULT_FACTS._replace(copies_boxes=True)


@pytest.fixture(params=[pytest.param("triton", marks=pytest.mark.gpu)])
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(autouse=True)
def _exact_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exact products stay with pointers, so TF32 is asked for."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)


@pytest.fixture(autouse=True)
def _through_descriptors(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A case that stayed with pointers has tested nothing; a 1×1 with a prologue does by rule, and the source
    of "unpadded", whose map no box fits."""
    made = []

    def noted(*args: object) -> object:
        made.append(args)
        return describe(*args)

    describe = _conv.map_descriptor
    monkeypatch.setattr(_conv, "map_descriptor", noted)
    yield
    exempt = {TestConvStats: ("deep_1x1",), TestConvDgrad: ("deep_1x1", "unpadded")}.get(request.cls, ())
    assert made or any(name in request.node.name for name in exempt), "no tile was a box"


def halved(value: Any) -> Any:
    """A map of fp32 in fp16; anything else as it is."""
    is_map = isinstance(value, Tensor) and value.dim() == 4 and value.dtype == torch.float32
    return value.half() if is_map else value


class AsTF32(KernelRules):
    """TF32 has fp16's ten bits of mantissa, and is held to fp16's 2× rule, on values that both hold."""

    def made(self, case: Case, dtype: torch.dtype, device: str | torch.device = "cpu") -> Inputs:
        inputs = super().made(case, dtype, device)
        return {
            name: halved(value).to(value.dtype) if isinstance(value, Tensor) else value
            for name, value in inputs.items()
        }

    def compare(self, outputs: tuple[Tensor, ...], inputs: Inputs, what: str) -> None:
        halves = {name: halved(value) for name, value in inputs.items()}
        super().compare(tuple(map(halved, outputs)), halves, what)


class TestConvAffineAct(AsTF32, AffineAct):
    shapes = SHAPES
    few_shapes = SHAPES


class TestConvStats(AsTF32, Stats):
    shapes = SHAPES
    few_shapes = SHAPES


class TestConvDgrad(AsTF32, Dgrad):
    shapes = SHAPES
    few_shapes = SHAPES
