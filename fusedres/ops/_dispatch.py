"""Which back-end serves a call. Back-ends enter themselves here; no op imports one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fusedres._heuristic import rule_for
from fusedres._settings import BACKEND
from fusedres.ops._planned import Choice, Convolution
from fusedres.ops._registry import backends_of


class Prepared(ABC):
    """An inference decided beforehand, as a function of x (channels_last): of a stem, blocks, a head."""

    #: The output's, for an x of the shape that it was decided for.
    shape: tuple[int, ...]

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor: ...

    @abstractmethod
    def joined(self, others: Sequence[Prepared]) -> Prepared | None:
        """This and then ``others`` as one, or ``None`` where the back-end cannot join them."""


@dataclass(frozen=True)
class Backend:
    """A back-end as the ops see it.

    ``unavailable()`` says why it cannot run in this process at all, ``cannot_serve(device, dtype)`` why
    it cannot take such tensors; both return ``None`` where nothing is in the way.
    ``prepare_block(x, chain, downsample)``, where there is one, readies a whole block of frozen layers for
    inputs like ``x``, or returns ``None``; ``prepare_stem(x, layer)`` does so for a stem, and
    ``prepare_head(x, weight, bias)`` for the pooling and the linear layer at a network's end. Where a
    back-end has several algorithms for a convolution, ``algorithms(convolution)`` gives a call for each, the
    default's first, for a plan to time, and ``rule(convolution)`` the default's name and why.
    """

    name: str
    unavailable: Callable[[], str | None]
    cannot_serve: Callable[[torch.device, torch.dtype], str | None]
    prepare_block: Callable[..., Prepared | None] | None = None
    prepare_stem: Callable[..., Prepared | None] | None = None
    prepare_head: Callable[..., Prepared | None] | None = None
    algorithms: Callable[[Convolution], Mapping[str, Callable[[], object]]] | None = None
    rule: Callable[[Convolution], tuple[str, str]] | None = None

    def refusal(self, device: torch.device, dtype: torch.dtype) -> str | None:
        return self.unavailable() or self.cannot_serve(device, dtype)


BACKENDS: dict[str, Backend] = {}

#: What "auto" means on each back-end in training, until a plan says otherwise.
COMPOSITIONS: dict[str, str] = {}

#: What ``auto`` tries on each type of device, in order; the reference takes every device.
AUTO_ORDER: dict[str, tuple[str, ...]] = {"cpu": ("cpu",), "cuda": ("cuda", "triton")}


class BackendRefusal(RuntimeError):
    """The back-end that was chosen cannot serve a call; the message says why."""


def register_backend(backend: Backend) -> None:
    BACKENDS[backend.name] = backend
    COMPOSITIONS[backend.name] = rule_for("composition", {"backend": backend.name}).then[0]


def serving_backends(device: torch.device, dtype: torch.dtype) -> list[str]:
    """The back-ends that ``auto`` has to choose from, best first."""
    names = [name for name in AUTO_ORDER.get(device.type, ()) if name in BACKENDS]
    return [name for name in names if BACKENDS[name].refusal(device, dtype) is None] or ["reference"]


def can_serve(choice: Choice, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether every back-end that ``choice`` names runs here."""
    return choice.backend == "auto" or all(
        name in BACKENDS and BACKENDS[name].refusal(device, dtype) is None
        for name in backends_of(choice.backend)
    )


def resolve_backend(x: Tensor, name: str | None = None, plan: Choice | None = None) -> str:
    """The back-end for a call on ``x``: ``name``, or what ``fusedres.backend()`` and its kin chose.

    Where that is ``auto``, ``plan`` decides, if there is one (it may name several, see :class:`Choice`).

    Raises:
        ValueError: an unknown name.
        BackendRefusal: the named back-end cannot serve, with its reason.
    """
    chosen = BACKEND.check(name) if name is not None else BACKEND.get()
    if chosen == "auto":
        if plan is not None and plan.backend != "auto":
            return plan.backend
        for candidate in AUTO_ORDER.get(x.device.type, ()):
            if candidate in BACKENDS and BACKENDS[candidate].refusal(x.device, x.dtype) is None:
                return candidate
        return "reference"
    if chosen not in BACKENDS:
        raise BackendRefusal(
            f"fusedres: back-end '{chosen}' is not part of this build; it has {sorted(BACKENDS)}"
        )
    refusal = BACKENDS[chosen].refusal(x.device, x.dtype)
    if refusal is not None:
        raise BackendRefusal(f"fusedres: back-end '{chosen}' cannot serve this call: {refusal}")
    return chosen
