"""What every fused module shares: its composition, and forgetting what was derived from its weights."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import chain
from typing import Any, NoReturn

from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from fusedres._settings import COMPOSITION
from fusedres.ops._caches import forget


class FusedModule(nn.Module):
    """Mixed in before a torchvision class whose forward it replaces.

    It adds no parameter, no buffer and no required state: an instance of the torchvision class becomes
    a fused one, and back, by a change of ``__class__`` (:func:`fusedres.fuse`).
    """

    _composition: str | None = None

    @property
    def composition(self) -> str | None:
        """How blocks train: ``"auto"``, ``"plain"``, ``"pointwise"``, ``"stats"`` or ``"mainloop"``.

        ``None`` (the default) follows ``FUSEDRES_COMPOSITION``; ``with fusedres.composition(...)`` beats
        both. Set on a model, it reaches every block inside.

        Raises:
            ValueError: an unknown name.
        """
        return self._composition

    @composition.setter
    def composition(self, value: str | None) -> None:
        if value is not None:
            COMPOSITION.check(value, f"{type(self).__name__}.composition")
        for module in self.modules():
            if isinstance(module, FusedModule):
                module.__dict__.pop("_composition", None)
                if value is not None:
                    module._composition = value

    def standalone(self) -> nn.Module:
        """A copy of what a plan decides on this module's behalf, to be timed alone: here the whole of it."""
        return copy.deepcopy(self)

    def train(self, mode: bool = True) -> Any:
        refresh(self)
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        refresh(self)
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        refresh(self)
        super()._load_from_state_dict(*args, **kwargs)

    def __prepare_scriptable__(self) -> NoReturn:
        # torch.jit.script calls this on every module it is about to compile.
        raise RuntimeError(
            f"torch.jit.script: {type(self).__name__} cannot be scripted: TorchScript does not know "
            "its ops; script fusedres.unfuse(model), the same parameters in torchvision's classes"
        )


def refresh(model: nn.Module) -> None:
    """Forget everything derived from a model's weights: packed weights and folded BatchNorms.

    Changes made by torch itself (an optimiser's step, ``load_state_dict``, ``.to()``) are seen without it;
    a write through ``tensor.data`` or NumPy's shared memory leaves no trace: call this after one.

    Raises:
        TypeError: ``model`` is no ``nn.Module``.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"refresh: `model` must be a torch.nn.Module; got {type(model).__name__}")
    forget(chain(model.parameters(), model.buffers()))


def _forget_unversioned_step(optimizer: Optimizer, args: object, kwargs: object) -> None:
    """Optimisers with ``fused=True`` write parameters without moving their version counters (torch 2.14).

    What was derived from them hangs on other tensors as well (a BatchNorm's on its statistics), so
    everything goes; it is made again by the next inference.
    """
    if any(group.get("fused") for group in optimizer.param_groups):
        forget()


register_optimizer_step_post_hook(_forget_unversioned_step)
