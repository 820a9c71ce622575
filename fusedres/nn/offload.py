"""``offload``: a model's weights in a file, where inference needs only their packed copies in memory."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import torch
from torch import Tensor, nn

from fusedres._user_cache import user_cache
from fusedres.nn._module import FusedModule, refresh
from fusedres.ops._mapped import into_file, is_mapped

#: Smaller weights save less than what keeps track of them costs.
LEAST_BYTES = 1 << 16


def offload(model: nn.Module, directory: str | os.PathLike[str] | None = None) -> int:
    """Move a model's convolution weights from memory into a file, and give their memory back.

    Inference on a CPU reads weights once, to pack them, and keeps the packed copies: the parameters are then
    in memory a second time. Afterwards their bytes lie in a nameless file, mapped into memory. They are the
    same parameters, can be read, written, trained and saved as before, and the file ends with them. Pages
    that somebody reads come back from the system's cache or the disk, and go again when the weight has been
    packed, as the next inference does. Outputs are the same bits.

    As ``.to()`` does, it gives each parameter new memory: a tensor that shared the old one keeps that, and a
    later ``.to()`` to another type or a ``copy.deepcopy`` lies in ordinary memory again. A process that is
    forked shares the file, and must not write to these parameters: the other one's would change too, and
    its packed copies would not.

    Args:
        model: a model with fused modules on the CPU; others of its weights, and those below 64 KB, stay.
        directory: where the file goes; ``None`` is ``fusedres`` in the user's cache folder. It must lie on
            a disk: a file in a memory file system, as ``/tmp`` is on some machines, saves nothing.

    Returns:
        How many bytes of the model's weights lie in files now.

    Raises:
        TypeError: ``model`` is no ``nn.Module``, or ``directory`` no path.
        ValueError: nothing in ``model`` can be moved.
        OSError: the file cannot be written; the model is then as it was.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"offload: `model` must be a torch.nn.Module; got {type(model).__name__}")
    if directory is not None and not isinstance(directory, (str, os.PathLike)):
        raise TypeError(f"offload: `directory` must be a path or None; got {directory!r}")
    weights = _weights(model)
    if not weights:
        raise ValueError(
            f"offload: `model` must have fused modules with weights of {LEAST_BYTES >> 10} KB or more on the "
            f"CPU; got {type(model).__name__} without any"
        )
    folder = user_cache() if directory is None else Path(directory)
    moving = [weight for weight in weights if not is_mapped(weight)]
    with torch.inference_mode(False), torch.no_grad():
        for weight, copy in zip(moving, into_file(moving, folder) if moving else [], strict=True):
            weight.data = copy
    refresh(model)
    _return_free_memory()
    return sum(weight.numel() * weight.element_size() for weight in weights)


def _weights(model: nn.Module) -> list[Tensor]:
    """The convolutions' weights in fused modules that a file can hold, each once."""
    convolutions = (
        part
        for module in model.modules()
        if isinstance(module, FusedModule)
        for part in module.modules()
        if isinstance(part, nn.Conv2d)
    )
    found = {
        id(weight): weight for conv in convolutions if (weight := conv._parameters.get("weight")) is not None
    }
    return [weight for weight in found.values() if _movable(weight)]


def _movable(weight: Tensor) -> bool:
    return (
        type(weight) in (nn.Parameter, Tensor)  # a subclass may have no bytes of its own
        and weight.device.type == "cpu"
        and not weight.is_inference()  # whose changes nobody sees: it is packed in every call
        and weight.numel() * weight.element_size() >= LEAST_BYTES
        and (weight.is_contiguous() or weight.is_contiguous(memory_format=torch.channels_last))
    )


def _return_free_memory() -> None:
    """What lies free inside malloc's heap, goes back to the system: glibc alone can."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        return
