"""Which back-end serves a call. Back-ends enter themselves here; no op imports one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fusedres._settings import BACKEND

#: A residual block in inference, ready to run: x, channels_last, to the block's output.
PreparedBlock = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Backend:
    """A back-end as the ops see it.

    ``unavailable()`` says why it cannot run in this process at all, ``cannot_serve(device, dtype)`` why
    it cannot take such tensors; both return ``None`` where nothing is in the way. ``composition`` is what
    "auto" means here in training, until a plan says otherwise. ``prepare_block(x, chain, downsample)``, where
    there is one, readies a whole block of frozen layers for inputs like ``x``, or returns ``None``.
    """

    name: str
    unavailable: Callable[[], str | None]
    cannot_serve: Callable[[torch.device, torch.dtype], str | None]
    composition: str = "pointwise"
    prepare_block: Callable[..., PreparedBlock | None] | None = None

    def refusal(self, device: torch.device, dtype: torch.dtype) -> str | None:
        return self.unavailable() or self.cannot_serve(device, dtype)


BACKENDS: dict[str, Backend] = {}

#: What ``auto`` tries on each type of device, in order; the reference takes every device.
AUTO_ORDER: dict[str, tuple[str, ...]] = {"cpu": ("cpu",), "cuda": ("cuda", "triton")}


def register_backend(backend: Backend) -> None:
    BACKENDS[backend.name] = backend


def resolve_backend(x: Tensor, name: str | None = None) -> str:
    """The back-end for a call on ``x``: ``name``, or what ``fusedres.backend()`` and its kin chose.

    Raises:
        ValueError: an unknown name.
        RuntimeError: the named back-end cannot serve, with its reason.
    """
    chosen = BACKEND.check(name) if name is not None else BACKEND.get()
    if chosen == "auto":
        for candidate in AUTO_ORDER.get(x.device.type, ()):
            if candidate in BACKENDS and BACKENDS[candidate].refusal(x.device, x.dtype) is None:
                return candidate
        return "reference"
    if chosen not in BACKENDS:
        raise RuntimeError(
            f"fusedres: back-end '{chosen}' is not part of this build; it has {sorted(BACKENDS)}"
        )
    refusal = BACKENDS[chosen].refusal(x.device, x.dtype)
    if refusal is not None:
        raise RuntimeError(f"fusedres: back-end '{chosen}' cannot serve this call: {refusal}")
    return chosen
