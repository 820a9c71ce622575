"""What every test of a block function needs: samples, what they are compared to, and the modes."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import pytest
import torch
from torch import Tensor

import fusedres
from tests import baselines
from tests._parity import assert_same_bits, assert_within_two_x
from tests.ops._rules import Bad
from tests.ops._samples import Block, Sample, decided, step

COMPOSITIONS = ("pointwise", "stats", "mainloop")
TRAINING = pytest.mark.parametrize("training", [True, False], ids=["training", "frozen"])
COMPOSITION = pytest.mark.parametrize("composition", COMPOSITIONS)
#: For what takes seconds a case: two cells of that table by default, the others with the slow tests.
FEW_MODES = pytest.mark.parametrize(
    ("composition", "training"),
    [
        pytest.param(composition, training, marks=() if quick else pytest.mark.slow)
        for composition in COMPOSITIONS
        for training in (True, False)
        for quick in [(composition, training) in (("mainloop", True), ("pointwise", False))]
    ],
)


class Expected(NamedTuple):
    """What a step is compared to: float64, plain PyTorch in our dtype, and errors allowed besides."""

    ref: dict[str, Tensor]
    plain: dict[str, Tensor]
    slack: dict[str, float]


class BlockCase:
    """One block function: its shapes, its samples, and the 2× rule for a step through it."""

    op: ClassVar[str]
    shapes: ClassVar[Sequence[Any]]
    #: Settings of ``fusedres.memory`` that change anything for this block.
    memories: ClassVar[tuple[str, ...]] = ("save",)
    #: Whether a frozen BatchNorm's γ gets its gradient from the weight's (see ``slack``).
    gamma_from_wgrad: ClassVar[bool] = True
    #: What is changed of a good call's keyword arguments, ``x`` among them.
    bad: ClassVar[Sequence[Bad]] = ()

    def make(self, shape: Any) -> Sample:
        """A float64 sample of the present seed."""
        raise NotImplementedError

    @property
    def ours(self) -> Block:
        return getattr(fusedres, self.op)

    @property
    def plain(self) -> Block:
        return getattr(baselines, self.op)

    def shape(self, name: str = "odd") -> Any:
        return next(s for s in self.shapes if s.name == name)

    def sample(
        self, shape: Any, dtype: torch.dtype = torch.float32, device: Any = "cpu", training: bool = True
    ) -> Sample:
        return decided_sample(type(self), shape, dtype, training).to(dtype, device)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "shape" in metafunc.fixturenames:
            shapes = [s for s in self.shapes if s.n and s.name != "tiny"]
            metafunc.parametrize("shape", shapes, ids=str)
        if "memory" in metafunc.fixturenames:
            metafunc.parametrize("memory", self.memories)
        if "bad_input" in metafunc.fixturenames:
            metafunc.parametrize("bad_input", self.bad, ids=[b.name for b in self.bad])

    def compare(self, ours: dict[str, Tensor], sample: Sample, what: str, *, training: bool) -> None:
        """The 2× rule for the output, all gradients and running statistics of one step."""
        self.compare_to(ours, self.expected(sample, training), what)

    def expected(self, sample: Sample, training: bool) -> Expected:
        with fusedres.backend("reference"):
            ref = step(sample.to(torch.float64), self.ours, training=training)
        slack = {} if training else {name: self.slack(name, sample.x.dtype, sample, ref) for name in ref}
        return Expected(ref, step(sample, self.plain, training=training), slack)

    def compare_to(self, ours: dict[str, Tensor], expected: Expected, what: str) -> None:
        assert ours.keys() == expected.ref.keys() == expected.plain.keys()
        for name, value in ours.items():
            ref, plain = expected.ref[name], expected.plain[name]
            if value.is_floating_point():
                assert_within_two_x(value, ref, plain, f"{what}: {name}", expected.slack.get(name, 0.0))
            else:
                assert_same_bits(value, plain, f"{what}: {name}")

    def slack(self, name: str, dtype: torch.dtype, sample: Sample, ref: dict[str, Tensor]) -> float:
        """What the 2× rule leaves out: the gradient of a frozen BatchNorm's γ.

        It is invstd · (⟨w, G⟩ − mean · Σdz) with G = wgrad(x, dz), and G is rounded to ``dtype``, each
        element by up to eps / 2: together by up to invstd · eps / 2 · Σ|w · G|, and G = dw / (γ · invstd).
        """
        layer, _, part = name.removeprefix("grad of ").partition(".")
        if part != "bn_weight" or not self.gamma_from_wgrad:
            return 0.0
        weight, gamma = (t.detach().cpu().double() for t in sample.layers[layer][:2])
        products = (weight * ref[f"grad of {layer}.weight"]).abs().sum((1, 2, 3))
        return torch.finfo(dtype).eps / 2 * (products / gamma.abs()).max().item()


@functools.cache
def decided_sample(
    rules: type[BlockCase], shape: Any, dtype: torch.dtype, training: bool, seed: int = 0
) -> Sample:
    make = functools.partial(rules().make, shape)
    return decided(make, rules().plain, dtype, seed, training=training) if shape.n else make()


@functools.cache
def pooled(
    rules: type[BlockCase], shape: Any, dtype: torch.dtype, training: bool, device: torch.device
) -> tuple[list[Sample], Expected]:
    """Several samples, compared together: the largest error of a handful of values is a matter of luck.

    (For a bottleneck on 1×1 maps, 25 seeds put ours between 0.3 and 4.6 times plain PyTorch's largest
    error in dγ, with the median at 1.)
    """
    samples = [
        decided_sample(rules, shape, dtype, training, seed).to(dtype, device) for seed in range(0, 8000, 1000)
    ]
    each = [rules().expected(sample, training) for sample in samples]
    slack = {name: max(e.slack[name] for e in each) for name in each[0].slack}
    return samples, Expected(stacked([e.ref for e in each]), stacked([e.plain for e in each]), slack)


def stacked(results: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([result[name] for result in results]) for name in results[0]}
