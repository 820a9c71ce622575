"""Inputs of a block function, and what one step through it yields."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fusedres import ConvBN

Block = Callable[..., Tensor]


def random_conv_bn(k: int, c: int, r: int, s: int | None = None) -> ConvBN:
    """A (K, C / groups, R, S) convolution that keeps its input's variance, and a BatchNorm of order 1."""
    size = (k, c, r, s or r)
    sign = torch.randint(2, (k,)).double() * 2 - 1
    return ConvBN(
        weight=torch.randn(size).double() / (c * r * (s or r)) ** 0.5,
        bn_weight=sign * (torch.rand(k).double() + 0.5),
        bn_bias=torch.randn(k).double() / 2,
        running_mean=torch.randn(k).double() / 2,
        running_var=torch.rand(k).double() + 0.5,
        num_batches_tracked=torch.tensor(3),
    )


@dataclass(frozen=True)
class Sample:
    """A block function's arguments: ``f(x, **layers, [residual,] **options)``."""

    x: Tensor
    layers: dict[str, ConvBN]
    residual: Tensor | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def call(self, block: Block, **more: Any) -> Tensor:
        tensors: dict[str, Any] = dict(self.layers)
        if self.residual is not None:
            tensors["residual"] = self.residual
        return block(self.x, **tensors, **self.options, **more)

    def leaves(self) -> dict[str, Tensor]:
        """Every tensor a gradient can be asked for, by name."""
        named = {"x": self.x, "residual": self.residual}
        for name, layer in self.layers.items():
            for part in ("weight", "bn_weight", "bn_bias"):
                named[f"{name}.{part}"] = getattr(layer, part)
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def buffers(self) -> dict[str, Tensor]:
        named = {
            f"{name}.{part}": getattr(layer, part)
            for name, layer in self.layers.items()
            for part in ("running_mean", "running_var", "num_batches_tracked")
        }
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def map(self, change: Callable[[str, Tensor], Tensor]) -> Sample:
        """The same sample with every tensor changed; ``change`` is told each one's name."""
        layers = {
            name: layer._replace(
                **{
                    part: change(f"{name}.{part}", value)
                    for part, value in layer._asdict().items()
                    if isinstance(value, Tensor)
                }
            )
            for name, layer in self.layers.items()
        }
        residual = None if self.residual is None else change("residual", self.residual)
        return replace(self, x=change("x", self.x), layers=layers, residual=residual)

    def to(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> Sample:
        """Leaves in ``dtype`` that ask for gradients; BatchNorm's tensors in fp32 (float64 for float64)."""
        wide = torch.float64 if dtype == torch.float64 else torch.float32

        def place(name: str, tensor: Tensor) -> Tensor:
            tensor = tensor.detach()
            if not tensor.is_floating_point():
                return tensor.to(device, copy=True)
            tensor = tensor.to(device, wide if tensor.dim() == 1 else dtype, copy=True)
            if tensor.dim() == 4:
                tensor = tensor.contiguous(memory_format=torch.channels_last)
            return tensor.requires_grad_("running" not in name)

        return self.map(place)


def step(sample: Sample, block: Block, **more: Any) -> dict[str, Tensor]:
    """Forward and backward of a copy of ``sample``: output, every gradient, every running statistic."""
    sample = sample.map(lambda _, t: t.detach().clone().requires_grad_(t.requires_grad))
    out = sample.call(block, **more)
    results = {"out": out.detach()}
    if out.requires_grad:
        out.backward(gradient_for(out))
        results |= {f"grad of {n}": t.grad for n, t in sample.leaves().items() if t.grad is not None}
    return results | {name: buffer.detach() for name, buffer in sample.buffers().items()}


def gradient_for(out: Tensor) -> Tensor:
    """The same random gradient for every dtype: values that bf16 holds exactly."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(out.shape, generator=generator).bfloat16().to(out)


class _Margin(TorchDispatchMode):
    """How far every ReLU's input is from 0, and every pooled maximum from its runner-up."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = self.pool = float("inf")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.relu.default:
            self.relu = min(self.relu, args[0].abs().min().item())
        if func is torch.ops.aten.max_pool2d_with_indices.default:
            n, c = args[0].shape[:2]
            windows = F.unfold(F.pad(args[0], (1, 1, 1, 1)), 3, stride=2).view(n, c, 9, -1)
            first, second = windows.topk(2, dim=2).values.unbind(2)
            self.pool = min(self.pool, (first - second)[first > 0].min().item())
        return func(*args, **(kwargs or {}))


def decided(
    make: Callable[[], Sample], block: Block, dtype: torch.dtype, first_seed: int = 0, **more: Any
) -> Sample:
    """A sample none of whose ReLU masks hangs on rounding, so that no gradient is a coin's toss.

    Values here are of order 1 and sums have up to some 500 terms: fp32 results are off by some 1e-6.
    bf16 ones are off by some 0.02 (eps / 2 = 0.004, of values up to 4, a few times over); so that few
    values lie near 0, each channel is mostly on or mostly off. A pool's choice among values that bf16
    cannot tell apart stays open.
    """
    margin = 0.05 if dtype == torch.bfloat16 else 1e-5
    for seed in range(first_seed, first_seed + 300):
        torch.manual_seed(seed)
        sample = make()
        if dtype == torch.bfloat16:
            sample = sample.map(_mostly_on_or_off).to(dtype).to(torch.float64)
        with torch.no_grad(), _Margin() as found:
            sample.to(torch.float64).call(block, **more)
        if found.relu > margin and found.pool > 1e-5:
            return sample
    raise AssertionError(f"300 seeds, and every one has a value within {margin} of a ReLU's edge")


def _mostly_on_or_off(name: str, tensor: Tensor) -> Tensor:
    """β beyond ±4 beside values of spread 0.7; what is added to them at a join is left small."""
    if name == "residual" or name.endswith("bn_weight"):
        return tensor / 2
    if name.endswith("bn_bias"):
        return tensor / 5 if name.startswith("downsample") else tensor.sign() * (4 + tensor.abs())
    if name.endswith("running_mean"):
        return tensor / 5
    return tensor
