"""What the tests of modules and models share: who ran fused, and a model's results in one dictionary."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch
from torch import Tensor, nn

from fusedres import ops
from fusedres.nn import _recall
from tests._parity import largest, rms

Results = dict[str, Tensor]


@contextmanager
def fused_calls() -> Iterator[list[str]]:
    """The names of the block ops that modules call inside the context, in order.

    No block recalls an earlier call there: it would run fused without calling its op again.
    """
    calls: list[str] = []

    def recording(name: str):
        run = getattr(ops, name)

        def record(*args, **kwargs):
            calls.append(name)
            return run(*args, **kwargs)

        return record

    names = ("basic_block", "bottleneck", "stem")
    with (
        patch.multiple(ops, **{name: recording(name) for name in names}),
        patch.object(_recall, "recall", lambda *_: None),
    ):
        yield calls


def results(model: nn.Module, x: Tensor, weights: Tensor, dtype: torch.dtype) -> Results:
    """Output, gradients of ``sum(output * weights)`` and buffers of a copy of ``model`` in ``dtype``."""
    model = copy.deepcopy(model).to(dtype)
    x = x.to(dtype).requires_grad_()
    out = model(x)
    parameters = {"x": x, **dict(model.named_parameters())}
    grads = torch.autograd.grad((out * weights.to(dtype)).sum(), list(parameters.values()))
    named = {f"d{name}": grad for name, grad in zip(parameters, grads, strict=True)}
    return {"out": out.detach(), **named, **dict(model.named_buffers())}


def assert_same_in_float64(ours: Results, ref: Results, plain: Results, what: str) -> None:
    """Two float64 runs of one model that differ by the order of their sums.

    How far such a reordering carries depends on the model's conditioning, which plain PyTorch's fp32
    error measures: fp32 rounds 2²⁹ times as coarsely. The factor 64 is for the spread between two samples
    of a maximum of rounding errors, a few values each in the smallest models, and for the two runs having
    an error each; anything done in fp32 would be off by 2²⁹.
    """
    assert ours.keys() == ref.keys()
    for name, r in ref.items():
        o = ours[name]
        if not r.is_floating_point():
            assert torch.equal(o, r), f"{what}: {name}: {o} instead of {r}"
            continue
        conditioning = largest(plain[name].double() - r) * 2.0**-29
        allowed = 64 * conditioning + 8 * torch.finfo(torch.float64).eps * largest(r)
        error = largest(o - r)
        assert error <= allowed, f"{what}: {name}: float64 error {error:.3e} > {allowed:.3e}"


def assert_two_x_together(ours: Results, ref: Results, plain: Results, what: str) -> None:
    """The 2× rule for all of a model's results as one vector.

    A gradient of 64 values has but a few independent rounding errors, carried there through the whole
    model: between two right results the largest differs by more than 2× in one tensor of some fifty. So
    each tensor is measured in units of plain PyTorch's rms error in it (plus its own rounding), and the
    rule holds for the largest and the rms of all of them: one tensor worse by 3× still breaks it.
    """
    assert ours.keys() == ref.keys() == plain.keys()
    our_errors, plain_errors = [], []
    for name, r in ref.items():
        o, p = ours[name], plain[name]
        if not r.is_floating_point():
            assert torch.equal(o, r), f"{what}: {name}: {o} instead of {r}"
            continue
        assert o.dtype == p.dtype and o.shape == p.shape, f"{what}: {name}: {o.dtype} {tuple(o.shape)}"
        assert bool(o.isfinite().all()), f"{what}: {name} is not finite"
        r = r.cpu()
        unit = rms(p.cpu().double() - r) + torch.finfo(o.dtype).eps * rms(r)
        our_errors.append((o.cpu().double() - r).flatten() / max(unit, torch.finfo(torch.float64).tiny))
        plain_errors.append((p.cpu().double() - r).flatten() / max(unit, torch.finfo(torch.float64).tiny))
    got, yardstick = torch.cat(our_errors), torch.cat(plain_errors)
    for measure in (largest, rms):
        assert measure(got) <= 2 * measure(yardstick) + 1, (
            f"{what}: {measure.__name__} error {measure(got):.2f} > 2 × {measure(yardstick):.2f} + 1, in"
            " units of plain PyTorch's rms error in each tensor"
        )


def away_from_kinks(model: nn.Module, shape: tuple[int, ...], margin: float = 1e-5) -> Tensor:
    """A channels_last input of ``model`` with which no ReLU's input comes near zero (in units of its rms).

    Where one does, plain PyTorch and ours may round to different sides of it: both gradients are right
    then, and far apart, so that no rule on rounding errors holds. The float64 model decides.
    """
    nearest: list[float] = []

    def observe(relu: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        nearest.append((inputs[0].abs().min() / rms(inputs[0])).item())

    judge = copy.deepcopy(model).double()
    for module in judge.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_pre_hook(observe)
    for seed in range(50):
        nearest.clear()
        x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        judge(x.double())
        if min(nearest) > margin:
            return x.contiguous(memory_format=torch.channels_last)
    raise AssertionError(f"no seed keeps {shape} away from the kinks of ReLU by {margin}")


def calibrate(model: nn.Module, x: Tensor) -> None:
    """Running statistics of ``x`` itself, so that inference is as well scaled as training."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [m.momentum for m in norms]
    for norm in norms:
        norm.momentum = 1.0
    training = model.training
    with torch.no_grad():
        model.train()(x)
    model.train(training)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
