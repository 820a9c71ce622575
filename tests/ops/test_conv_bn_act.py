from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import fusedres
from fusedres import ConvBN
from tests import baselines
from tests._probe import saved_for_backward
from tests.ops._block_rules import BlockRules, bad_layer
from tests.ops._rules import Bad, Inputs
from tests.ops._samples import Block, Sample, random_conv_bn, step
from tests.ops.shapes import CONV_SHAPES, ConvShape


def flattened(x: Tensor, conv: ConvBN, residual: Tensor | None = None, **options: Any) -> Tensor:
    """``fusedres.conv_bn_act`` called with a ConvBN, as the other blocks are."""
    tensors = conv._asdict()
    return fusedres.conv_bn_act(x, tensors.pop("weight"), residual=residual, **tensors, **options)


def changed(inputs: Inputs, **fields: Any) -> Inputs:
    return {"conv": inputs["conv"]._replace(**fields)}


class TestConvBnAct(BlockRules):
    op = "conv_bn_act"
    shapes = (
        *(s for s in CONV_SHAPES if s.name not in ("one_channel", "only_padding")),
        ConvShape("tiny", "for gradcheck", n=2, c=2, h=3, w=3, k=2, r=3, padding=1),
    )

    bad = (
        *bad_layer("conv_bn_act", "conv", ""),
        Bad(
            "training",
            lambda i: {"training": "no"},
            TypeError,
            "conv_bn_act: `training` must be True or False; got 'no'",
        ),
        Bad(
            "residual_type",
            lambda i: {"residual": [1.0]},
            TypeError,
            "conv_bn_act: `residual` must be a tensor; got list",
        ),
        Bad(
            "groups_str",
            lambda i: {"groups": "2"},
            TypeError,
            "conv_bn_act: `groups` must be an int; got '2'",
        ),
        Bad(
            "groups_float",
            lambda i: {"groups": 1.0},
            TypeError,
            "conv_bn_act: `groups` must be an int; got 1.0",
        ),
        Bad(
            "rank",
            lambda i: {"x": i["x"][0]},
            ValueError,
            r"conv_bn_act: `x` must have 4 dimensions.*\(10, 7, 5\)",
        ),
        Bad("not_a_tensor", lambda i: {"x": 3}, TypeError, "conv_bn_act: `x` must be a tensor; got int"),
        Bad(
            "channels", lambda i: {"x": i["x"][:, :8]}, ValueError, "`weight` must have 8 = C / groups input"
        ),
        Bad("dtype_mix", lambda i: {"x": i["x"].double()}, TypeError, "`weight` must have the dtype of `x`"),
        Bad(
            "device_mix",
            lambda i: {"x": i["x"].to("meta")},
            ValueError,
            "`weight` must be on the device of `x`",
        ),
        Bad("groups", lambda i: {"groups": 4}, ValueError, "`groups` must divide the 10 channels of `x`"),
        Bad("act", lambda i: {"act": "gelu"}, ValueError, "`act` must be 'relu' or 'none'; got 'gelu'"),
        Bad(
            "residual",
            lambda i: {"residual": i["x"]},
            ValueError,
            r"`residual` must have shape \(2, 6, 7, 5\)",
        ),
        Bad(
            "bn_weight",
            lambda i: changed(i, bn_weight=torch.ones(5)),
            ValueError,
            r"`bn_weight` must have shape",
        ),
        Bad(
            "bn_dtype",
            lambda i: changed(i, bn_bias=torch.ones(6).int()),
            TypeError,
            "`bn_bias` must be a floating",
        ),
        Bad(
            "half", lambda i: changed(i, running_var=None), ValueError, "go together; got only `running_mean`"
        ),
    )

    @property
    def ours(self) -> Block:
        return flattened

    def kept(self, sample: Sample, training: bool, memory: str) -> list[tuple[int, torch.dtype]]:
        """x; the convolution's output in training; the block's output, for the join's mask."""
        assert sample.residual is not None
        out = sample.residual.numel()
        return [(sample.x.numel(), sample.x.dtype), *[(out, sample.x.dtype)] * (2 if training else 1)]

    def make(self, shape: ConvShape) -> Sample:
        residual = torch.randn(shape.y).double()
        return Sample(
            torch.randn(shape.x).double(), {"conv": random_conv_bn(*shape.weight)}, residual, shape.conv
        )

    @pytest.mark.parametrize("training", [True, False])
    @pytest.mark.parametrize("act", ["relu", "none"])
    @pytest.mark.parametrize("with_residual", [True, False])
    def test_every_ending(
        self, act: str, with_residual: bool, training: bool, backend: str, device: torch.device
    ) -> None:
        made = self.sample(self.shape(), device=device)
        sample = Sample(
            made.x, made.layers, made.residual if with_residual else None, {**made.options, "act": act}
        )
        with fusedres.backend(backend):
            ours = step(sample, self.ours, training=training)
        self.compare(ours, sample, f"conv_bn_act {act}", training=training)

    def test_cumulative_average_needs_its_count(self) -> None:
        sample = self.sample(self.shape())
        layers = {"conv": sample.layers["conv"]._replace(momentum=None, num_batches_tracked=None)}
        sample = Sample(sample.x, layers, sample.residual, sample.options)
        with pytest.raises(
            ValueError, match=r"`num_batches_tracked` is needed .* \(momentum=None\); got None"
        ):
            sample.call(self.ours, training=True)
        sample.call(self.ours, training=False)

    def test_without_a_residual_its_own_output_masks_nothing(
        self, backend: str, device: torch.device
    ) -> None:
        """In training the mask follows from y, and the output is left to the next layer."""
        made = self.sample(self.shape(), device=device)
        sample = Sample(made.x, made.layers, None, made.options)
        with fusedres.backend(backend), saved_for_backward() as saved:
            out = sample.call(self.ours, training=True)
        assert all(t.untyped_storage().data_ptr() != out.untyped_storage().data_ptr() for t in saved)

    def test_one_value_per_channel(self) -> None:
        sample = self.sample(self.shape(), training=False)
        x, conv = torch.randn(1, 10, 1, 1), sample.layers["conv"]
        with pytest.raises(ValueError) as theirs:
            baselines.conv_bn_act(x, conv, training=True, padding=1)
        with pytest.raises(ValueError) as ours:
            flattened(x, conv, training=True, padding=1)
        assert str(ours.value) == str(theirs.value)
        assert flattened(x, conv, padding=1).shape == (1, 6, 1, 1)
