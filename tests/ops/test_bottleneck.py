from __future__ import annotations

import pytest
import torch

import fusedres
from tests import baselines
from tests._parity import assert_same_bits
from tests._probe import KernelCalls
from tests.ops._block_case import COMPOSITION
from tests.ops._block_rules import BlockRules, bad_conv_bn, bad_layer, bad_wishes
from tests.ops._rules import Bad
from tests.ops._samples import Sample, random_conv_bn, step
from tests.ops.shapes import BOTTLENECK_SHAPES, BlockShape


class TestBottleneck(BlockRules):
    op = "bottleneck"
    shapes = BOTTLENECK_SHAPES
    memories = ("save", "recompute")
    bad = (
        *bad_wishes("bottleneck"),
        *bad_conv_bn("bottleneck", "conv2"),
        *bad_layer("bottleneck", "conv2", "conv2."),
        Bad(
            "training",
            lambda i: {"training": "no"},
            TypeError,
            "bottleneck: `training` must be True or False; got 'no'",
        ),
        Bad(
            "groups_type",
            lambda i: {"groups": "2"},
            TypeError,
            "bottleneck: `groups` must be an int; got '2'",
        ),
        Bad(
            "conv1_filters",
            lambda i: {"conv1": i["conv1"]._replace(weight=i["conv1"].weight.repeat(1, 1, 3, 3))},
            ValueError,
            r"`conv1.weight` must have filters of size \(1, 1\); got shape \(6, 10, 3, 3\)",
        ),
        Bad(
            "conv2_filters",
            lambda i: {"conv2": i["conv2"]._replace(weight=i["conv2"].weight[..., :1, :1])},
            ValueError,
            r"`conv2.weight` must have filters of size \(3, 3\); got shape \(6, 6, 1, 1\)",
        ),
        Bad(
            "conv3_filters",
            lambda i: {"conv3": i["conv3"]._replace(weight=i["conv3"].weight.repeat(1, 1, 2, 1))},
            ValueError,
            r"`conv3.weight` must have filters of size \(1, 1\); got shape \(14, 6, 2, 1\)",
        ),
        Bad(
            "rank",
            lambda i: {"x": i["x"][0]},
            ValueError,
            r"bottleneck: `x` must have 4 dimensions.*\(10, 7, 5\)",
        ),
        Bad(
            "channels", lambda i: {"x": i["x"][:, :4]}, ValueError, "`conv1.weight` must have 4 = C / groups"
        ),
        Bad("chain", lambda i: {"conv3": i["conv1"]}, ValueError, "`conv3.weight` must have 6 = C / groups"),
        Bad("groups", lambda i: {"groups": 4}, ValueError, "`groups` must divide the 6 channels"),
        Bad(
            "dtype_mix",
            lambda i: {"x": i["x"].double()},
            TypeError,
            "`conv1.weight` must have the dtype of `x`",
        ),
        Bad("identity", lambda i: {"downsample": None}, ValueError, "must have the block's output shape"),
        Bad("dilation", lambda i: {"dilation": 0}, ValueError, "`dilation` must be at least 1; got 0"),
        Bad(
            "bn",
            lambda i: {"conv3": i["conv3"]._replace(bn_bias=torch.zeros(3))},
            ValueError,
            r"bottleneck: `conv3.bn_bias` must have shape \(14,\); got \(3,\)",
        ),
    )

    def make(self, shape: BlockShape) -> Sample:
        layers = {
            "conv1": random_conv_bn(shape.m, shape.c, 1),
            "conv2": random_conv_bn(shape.m, shape.m // shape.groups, 3),
            "conv3": random_conv_bn(shape.k, shape.m, 1),
        }
        if shape.downsample:
            layers["downsample"] = random_conv_bn(shape.k, shape.c, 1)
        options = {"stride": shape.stride, "dilation": shape.dilation, "groups": shape.groups}
        return Sample(torch.randn(shape.x).double(), layers, options=options)

    def kept(self, sample: Sample, training: bool, memory: str) -> list[tuple[int, torch.dtype]]:
        """x, y1, y2, y3 (not under recompute), the downsample's y, the output; frozen: x, a1, a2, output."""
        x, dtype = sample.x, sample.x.dtype
        out = sample.call(baselines.bottleneck)
        m = sample.layers["conv1"].weight.shape[0]
        wide = 1 + training * ((memory == "save") + ("downsample" in sample.layers))
        inner = [x.numel() // x.shape[1] * m, out.numel() // out.shape[1] * m]
        return [(numel, dtype) for numel in (x.numel(), *inner, *[out.numel()] * wide)]

    @COMPOSITION
    def test_recompute_gives_the_same_bits_and_updates_once(
        self, composition: str, backend: str, device: torch.device
    ) -> None:
        sample = self.sample(self.shape(), device=device)
        with fusedres.backend(backend), fusedres.composition(composition):
            saved = step(sample, self.ours, training=True)
            with fusedres.memory("recompute"), KernelCalls() as kernels:
                recomputed = step(sample, self.ours, training=True)
        for name, value in saved.items():
            assert_same_bits(recomputed[name], value, f"recompute {composition}: {name}")
        assert kernels.names().count("bn_update_running") == 1

    def test_inference_is_one_kernel(self, backend: str, device: torch.device) -> None:
        sample = self.sample(self.shape(), device=device)
        with torch.no_grad(), fusedres.backend(backend), KernelCalls() as kernels:
            sample.call(self.ours)
        assert kernels.names() == ["bottleneck_infer"]

    def test_one_value_per_channel(self) -> None:
        sample = self.sample(self.shape())
        single = Sample(torch.randn(1, 10, 1, 1), sample.layers)
        with pytest.raises(ValueError) as theirs:
            single.call(baselines.bottleneck, training=True)
        with pytest.raises(ValueError) as ours:
            single.call(fusedres.bottleneck, training=True)
        assert str(ours.value) == str(theirs.value)
