from __future__ import annotations

import pytest
import torch

import fusedres
from fusedres.ops.affine_act_maxpool import pooled_shape
from tests import baselines
from tests.ops._block_rules import BlockRules, bad_conv_bn, bad_layer, bad_wishes
from tests.ops._rules import Bad
from tests.ops._samples import Sample, random_conv_bn
from tests.ops.shapes import STEM_SHAPES, ConvShape


class TestStem(BlockRules):
    op = "stem"
    shapes = STEM_SHAPES
    gamma_from_wgrad = False
    bad = (
        *bad_wishes("stem"),
        *bad_conv_bn("stem", "conv"),
        *bad_layer("stem", "conv", "conv."),
        Bad(
            "training",
            lambda i: {"training": "no"},
            TypeError,
            "stem: `training` must be True or False; got 'no'",
        ),
        Bad(
            "float_stride",
            lambda i: {"stride": (2.0, 2)},
            ValueError,
            r"`stride` must be an int or .* \(2.0, 2\)",
        ),
        Bad(
            "rank", lambda i: {"x": i["x"][0]}, ValueError, r"stem: `x` must have 4 dimensions.*\(3, 19, 17\)"
        ),
        Bad("channels", lambda i: {"x": i["x"][:, :1]}, ValueError, "`conv.weight` must have 1 = C / groups"),
        Bad(
            "dtype_mix",
            lambda i: {"x": i["x"].double()},
            TypeError,
            "`conv.weight` must have the dtype of `x`",
        ),
        Bad("padding", lambda i: {"padding": -1}, ValueError, "`padding` must be at least 0; got -1"),
        Bad(
            "bn",
            lambda i: {"conv": i["conv"]._replace(bn_weight=torch.zeros(3))},
            ValueError,
            r"stem: `conv.bn_weight` must have shape \(10,\); got \(3,\)",
        ),
    )

    def make(self, shape: ConvShape) -> Sample:
        options = {"stride": shape.stride, "padding": shape.padding}
        return Sample(torch.randn(shape.x).double(), {"conv": random_conv_bn(*shape.weight)}, options=options)

    def kept(self, sample: Sample, training: bool, memory: str) -> list[tuple[int, torch.dtype]]:
        """x, the convolution's output, and a byte a pooled value."""
        y = baselines.conv_bn(sample.x, sample.layers["conv"], False, **sample.options)
        index = torch.Size(pooled_shape(y)).numel()
        return [(sample.x.numel(), y.dtype), (y.numel(), y.dtype), (index, torch.uint8)]

    def test_one_value_per_channel(self) -> None:
        sample = self.sample(self.shape())
        single = Sample(torch.randn(1, 3, 2, 2), sample.layers)
        with pytest.raises(ValueError) as theirs:
            single.call(baselines.stem, training=True)
        with pytest.raises(ValueError) as ours:
            single.call(fusedres.stem, training=True)
        assert str(ours.value) == str(theirs.value)
