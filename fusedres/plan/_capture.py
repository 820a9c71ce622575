"""The distinct blocks of a model, seen by running it once; the model is left as it was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fusedres._settings import COMPOSITION
from fusedres.plan._record import Recorder, record


def inputs_of(name: str, example_inputs: Tensor | Sequence[Any]) -> tuple[Any, ...]:
    """A model's positional arguments from what a user gives for them."""
    if isinstance(example_inputs, Tensor):
        return (example_inputs,)
    if not isinstance(example_inputs, (list, tuple)) or not example_inputs:
        kind = type(example_inputs).__name__
        raise TypeError(
            f"{name}: `example_inputs` must be a tensor, or a list or tuple of the model's positional "
            f"arguments; got {f'an empty {kind}' if isinstance(example_inputs, (list, tuple)) else kind}"
        )
    return tuple(example_inputs)


def check_model(name: str, model: object) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"{name}: `model` must be a torch.nn.Module; got {type(model).__name__}")
    for module in model.modules():
        if isinstance(module, torch.jit.ScriptModule) or "_orig_mod" in module._modules:
            raise TypeError(
                f"{name}: `model` must be given before torch.compile and torch.jit; "
                f"got a {type(module).__name__} in it"
            )


@contextmanager
def mode_of(name: str, model: nn.Module, train: bool | None) -> Iterator[None]:
    """``model.train(train)`` for a while, or the mode it is in."""
    if train is not None and not isinstance(train, bool):
        raise TypeError(f"{name}: `train` must be True, False or None; got {train!r}")
    flags = [(module, module.training) for module in model.modules()]
    if (model.training if train is None else train) and torch.is_inference_mode_enabled():
        raise ValueError(f"{name}: training needs gradients; got a call inside torch.inference_mode()")
    try:
        if train is not None and model.training != train:
            model.train(train)
        with torch.set_grad_enabled(model.training):
            yield
    finally:
        for module, flag in flags:
            module.training = flag


def capture(name: str, model: nn.Module, inputs: tuple[Any, ...]) -> Recorder:
    """Every distinct block of a run of ``model``; its buffers and the random state are put back.

    Raises:
        ValueError: no fused block ran.
    """
    trains = any(module.training for module in model.modules())
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()] if trains else []
    devices = sorted({tensor.device.index for tensor in model.buffers() if tensor.device.type == "cuda"})
    try:
        with torch.random.fork_rng(devices):
            recorder = record(lambda: model(*inputs))
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
    if not recorder.seen:
        chosen = COMPOSITION.get()
        reason = (
            f"composition {chosen!r} is chosen for all, which leaves nothing to a plan"
            if chosen != "auto"
            else f"{type(model).__name__} ran none: fusedres.fuse(model) makes them, unless hooks, norm "
            "layers or `composition` stand in the way"
        )
        raise ValueError(f"{name}: `model` must run fused blocks; {reason}")
    return recorder
