"""The other mode of ``fusedres compare``: a training step, forward, loss, backward and SGD."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import fusedres
from fusedres.cli.console import refusals
from fusedres.cli.measure import count_kernels, interleave, planned_blocks, saved_bytes
from fusedres.cli.networks import OURS, PLAIN_NHWC, Contender, contenders, reference
from fusedres.cli.parity import Parity, two_times_rule, two_times_rule_of_many
from fusedres.cli.results import Section

#: Steps that :func:`compare_training` reports beside its rounds.
CHECK_STEPS = 3

#: Small enough that the weights hardly move while they are timed.
LEARNING_RATE = 1e-4

#: How far the images are moved to see what kinks do to a gradient: 64 roundings of float32, several times the
#: error that float32 leaves in an activation, so that more units cross their kink than by rounding alone.
KINK_NOISE = 64 * torch.finfo(torch.float32).eps


@dataclass(frozen=True)
class Step:
    """What one forward and backward left: logits, gradients and running statistics."""

    logits: Tensor
    gradients: dict[str, Tensor]
    statistics: dict[str, Tensor]


def compare_training(
    plain: nn.Module,
    ours: nn.Module,
    images: Tensor,
    labels: Tensor,
    device: torch.device,
    dtype: torch.dtype,
    rounds: int,
    step: Callable[[], None],
    tune: bool = False,
) -> Section:
    """Parity of one step, bytes kept for its backward, then speed.

    ``step`` is called ``CHECK_STEPS + rounds`` times. Parameters and images are float32; bfloat16 is by
    autocast.

    Args:
        plain: torchvision's model, on the CPU in float32.
        ours: our model, likewise.
        images: (N, 3, H, W) float32.
        labels: (N,) int64.
        device: where to run.
        dtype: float32, or what autocast computes in.
        rounds: samples a contender.
        step: called as work is done.
        tune: tune ours before anything else.
    """
    labels = labels.to(device)
    exact = reference(plain.train(), images, device, dtype, keep_norms=True)
    with refusals():
        truth = run_step(exact, labels, torch.float64)
    moved = run_step(Contender(exact.model, moved_images(exact.images)), labels, torch.float64)
    del exact
    step()
    fields = contenders(plain.train(), ours.train(), images, device, torch.float32)
    if tune:
        with refusals(), _autocast(device, dtype):
            fusedres.tune(fields[OURS].model, fields[OURS].images, train=True, progress=False, table=False)
    with refusals():
        plain_step, our_step = (run_step(fields[name], labels, dtype) for name in (PLAIN_NHWC, OURS))
    parity = judge(our_step, plain_step, truth, moved)
    step()
    saved = {
        name: saved_bytes(partial(_loss, field, labels, dtype), field.model) for name, field in fields.items()
    }
    by_plan = planned_blocks(partial(_loss, fields[OURS], labels, dtype))
    backwards = {name: partial(_forward_backward, field, labels, dtype) for name, field in fields.items()}
    kernels = {name: count_kernels(call, device) for name, call in backwards.items()}
    step()
    steps = {name: _training_step(field, labels, dtype) for name, field in fields.items()}
    timings, repeats = interleave(steps, rounds, device, step)
    return Section(
        mode="training",
        parity=parity,
        agreement=None,
        seen=(),
        timings=tuple(timings),
        calls=repeats,
        kernels=kernels,
        saved=saved,
        planned=by_plan,
    )


def run_step(contender: Contender, labels: Tensor, dtype: torch.dtype) -> Step:
    """One forward and backward; the model's gradients are cleared before, and its running statistics move."""
    model = contender.model
    model.zero_grad(set_to_none=True)
    with _autocast(labels.device, dtype):
        logits = model(contender.images)
        loss = cross_entropy(logits, labels)
    loss.backward()  # type: ignore[no-untyped-call]
    return Step(
        logits=logits.detach(),
        gradients={name: p.grad for name, p in model.named_parameters() if p.grad is not None},
        statistics={name: b.clone() for name, b in model.named_buffers() if b.is_floating_point()},
    )


def judge(ours: Step, plain: Step, truth: Step, moved: Step) -> tuple[Parity, ...]:
    """The 2× rule for logits, all gradients and all running statistics of a step.

    ``moved`` is the reference's step on images moved by :data:`KINK_NOISE`. A gradient is not continuous:
    where rounding carries one unit across its ReLU's kink, everything before it changes, by thousands of
    times the rounding. Whether that happens to us, to plain PyTorch, to both or to neither is chance.
    """
    return (
        two_times_rule("logits", ours.logits, plain.logits, truth.logits),
        two_times_rule_of_many(
            "gradients", ours.gradients, plain.gradients, truth.gradients, moved.gradients
        ),
        two_times_rule_of_many("running statistics", ours.statistics, plain.statistics, truth.statistics),
    )


def moved_images(images: Tensor) -> Tensor:
    """``images`` with the noise by which :func:`judge` knows gradients near a kink."""
    generator = torch.Generator(images.device).manual_seed(0)
    noise = torch.rand(images.shape, generator=generator, device=images.device, dtype=images.dtype)
    return images * (1 + KINK_NOISE * (2 * noise - 1))


def _loss(contender: Contender, labels: Tensor, dtype: torch.dtype) -> Tensor:
    with _autocast(labels.device, dtype):
        return cross_entropy(contender.model(contender.images), labels)


def _forward_backward(contender: Contender, labels: Tensor, dtype: torch.dtype) -> None:
    contender.model.zero_grad(set_to_none=True)
    _loss(contender, labels, dtype).backward()  # type: ignore[no-untyped-call]


def _training_step(contender: Contender, labels: Tensor, dtype: torch.dtype) -> Callable[[], None]:
    optimizer = torch.optim.SGD(contender.model.parameters(), lr=LEARNING_RATE, momentum=0.9)

    def run() -> None:
        _forward_backward(contender, labels, dtype)
        optimizer.step()

    return run


def _autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)
