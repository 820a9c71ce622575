from __future__ import annotations

import pytest
import torch

import fusedres
from tests import baselines
from tests.ops._block_rules import BlockRules, bad_conv_bn, bad_layer, bad_wishes
from tests.ops._rules import Bad
from tests.ops._samples import Sample, random_conv_bn
from tests.ops.shapes import BASIC_BLOCK_SHAPES, BlockShape


class TestBasicBlock(BlockRules):
    op = "basic_block"
    shapes = BASIC_BLOCK_SHAPES
    bad = (
        *bad_wishes("basic_block"),
        *bad_conv_bn("basic_block", "conv1"),
        *bad_layer("basic_block", "conv1", "conv1."),
        Bad(
            "training",
            lambda i: {"training": "no"},
            TypeError,
            "basic_block: `training` must be True or False; got 'no'",
        ),
        *bad_conv_bn("basic_block", "downsample"),
        Bad(
            "conv1_filters",
            lambda i: {"conv1": i["conv1"]._replace(weight=i["conv1"].weight[..., :1, :1])},
            ValueError,
            r"`conv1.weight` must have filters of size \(3, 3\); got shape \(10, 6, 1, 1\)",
        ),
        Bad(
            "conv2_filters",
            lambda i: {"conv2": i["conv2"]._replace(weight=i["conv2"].weight[..., :1])},
            ValueError,
            r"`conv2.weight` must have filters of size \(3, 3\); got shape \(10, 10, 3, 1\)",
        ),
        Bad(
            "downsample_filters",
            lambda i: {
                "downsample": i["downsample"]._replace(weight=i["downsample"].weight.repeat(1, 1, 3, 3))
            },
            ValueError,
            r"`downsample.weight` must have filters of size \(1, 1\); got shape \(10, 6, 3, 3\)",
        ),
        Bad(
            "rank",
            lambda i: {"x": i["x"][0]},
            ValueError,
            r"basic_block: `x` must have 4 dimensions.*\(6, 7, 5\)",
        ),
        Bad(
            "channels", lambda i: {"x": i["x"][:, :4]}, ValueError, "`conv1.weight` must have 4 = C / groups"
        ),
        Bad(
            "chain",
            lambda i: {"conv2": i["downsample"]},
            ValueError,
            "`conv2.weight` must have 10 = C / groups",
        ),
        Bad(
            "dtype_mix",
            lambda i: {"x": i["x"].double()},
            TypeError,
            "`conv1.weight` must have the dtype of `x`",
        ),
        Bad("identity", lambda i: {"downsample": None}, ValueError, "must have the block's output shape"),
        Bad(
            "skip_channels",
            lambda i: {"downsample": i["conv2"]},
            ValueError,
            "`downsample.weight` must have 6",
        ),
        Bad("stride", lambda i: {"stride": 0}, ValueError, "`stride` must be at least 1; got 0"),
        Bad(
            "bn",
            lambda i: {"conv2": i["conv2"]._replace(running_mean=torch.zeros(3))},
            ValueError,
            r"basic_block: `conv2.running_mean` must have shape \(10,\); got \(3,\)",
        ),
    )

    def make(self, shape: BlockShape) -> Sample:
        layers = {"conv1": random_conv_bn(shape.k, shape.c, 3), "conv2": random_conv_bn(shape.k, shape.k, 3)}
        if shape.downsample:
            layers["downsample"] = random_conv_bn(shape.k, shape.c, 1)
        return Sample(torch.randn(shape.x).double(), layers, options={"stride": shape.stride})

    def kept(self, sample: Sample, training: bool, memory: str) -> list[tuple[int, torch.dtype]]:
        """x, y1, y2, the downsample's y and the output; frozen: x, the inner activation, the output."""
        out = sample.call(baselines.basic_block).numel()
        maps = 2 + training * (1 + ("downsample" in sample.layers))
        return [(sample.x.numel(), sample.x.dtype), *[(out, sample.x.dtype)] * maps]

    def test_one_value_per_channel(self) -> None:
        sample = self.sample(self.shape())
        single = Sample(torch.randn(1, 6, 1, 1), sample.layers, options={"stride": 1})
        with pytest.raises(ValueError) as theirs:
            single.call(baselines.basic_block, training=True)
        with pytest.raises(ValueError) as ours:
            single.call(fusedres.basic_block, training=True)
        assert str(ours.value) == str(theirs.value)
