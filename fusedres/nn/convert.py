"""``fuse`` and ``unfuse``: the same modules and parameters in fused, or in torchvision's, classes."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from torch import nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.resnet import BasicBlock, Bottleneck

from fusedres.nn._module import FusedModule, refresh
from fusedres.nn.blocks import FusedBasicBlock, FusedBottleneck
from fusedres.nn.stem import FusedIntermediateLayerGetter

M = TypeVar("M", bound=nn.Module)

_FUSED: dict[type[nn.Module], type[FusedModule]] = {
    BasicBlock: FusedBasicBlock,
    Bottleneck: FusedBottleneck,
    IntermediateLayerGetter: FusedIntermediateLayerGetter,
}


def fused_class(plain: type[nn.Module]) -> type[nn.Module]:
    """The fused class of a torchvision class; a class that has none is returned as it is."""
    return _FUSED.get(plain, plain)


def register_fused(plain: type[nn.Module], fused: type[FusedModule]) -> None:
    """Have :func:`fuse` turn instances of exactly ``plain`` into ``fused``, and :func:`unfuse` back."""
    _FUSED[plain] = fused


def fuse(model: M, inplace: bool = False) -> M:
    """The model with its torchvision ResNets and residual blocks fused, wherever in it they stand.

    Only classes change: parameters, buffers, hooks and attributes are the same objects, so that an
    optimiser made for one model trains the other too. Subclasses of torchvision's blocks are left
    alone, because their forward is their own.

    Args:
        model: a torchvision ResNet, one of its blocks, or any module that contains some.
        inplace: ``False`` returns new modules that share ``model``'s tensors (``model`` is left as it
            is); ``True`` changes ``model`` itself.

    Raises:
        TypeError: ``model`` is no ``nn.Module``, or is compiled or TorchScript already.
        ValueError: ``model`` has nothing to fuse.
    """
    _check("fuse", model, inplace)
    blocks = (BasicBlock, Bottleneck)
    if not any(isinstance(module, blocks) for module in model.modules()):
        raise ValueError(
            f"fuse: `model` must contain torchvision residual blocks (BasicBlock, Bottleneck); "
            f"got {type(model).__name__} without any"
        )
    return _converted(model, inplace, _FUSED)


def unfuse(model: M, inplace: bool = False) -> M:
    """The model in torchvision's own classes again, sharing the same tensors; undoes :func:`fuse`.

    For what knows torchvision's modules only, such as ``torch.jit.script`` or quantisation tools.

    Args:
        model: any module; one without fused parts comes back unchanged.
        inplace: as in :func:`fuse`.

    Raises:
        TypeError: ``model`` is no ``nn.Module``, or is compiled or TorchScript already.
    """
    _check("unfuse", model, inplace)
    return _converted(model, inplace, {fused: plain for plain, fused in _FUSED.items()})


def _check(name: str, model: object, inplace: object) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"{name}: `model` must be a torch.nn.Module; got {type(model).__name__}")
    if not isinstance(inplace, bool):
        raise TypeError(f"{name}: `inplace` must be a bool; got {inplace!r}")
    # Both hold a program made of the classes as they were, which a change of class would not reach.
    # (torch.compile's wrapper is told by its one child: its class lives in a module slow to import.)
    for module in model.modules():
        if isinstance(module, torch.jit.ScriptModule) or "_orig_mod" in module._modules:
            raise TypeError(
                f"{name}: `model` must be converted before torch.compile and torch.jit; "
                f"got a {type(module).__name__} in it"
            )


def _converted(model: M, inplace: bool, classes: Any) -> M:
    result = model if inplace else _copy_modules(model, {})
    refresh(result)
    for module in result.modules():
        target = classes.get(type(module))
        if target is not None:
            module.__class__ = target
            if not issubclass(target, FusedModule):
                module.__dict__.pop("_composition", None)
    return result


def _copy_modules(module: M, copies: dict[nn.Module, Any]) -> M:
    """New modules around the same tensors; a module used twice stays one module."""
    if module in copies:
        return copies[module]  # type: ignore[no-any-return]
    twin = copies[module] = type(module).__new__(type(module))
    # Dictionaries and sets (parameters, buffers, hooks, ...) are the copy's own; what they hold is not.
    # What ``module.compile()`` left is bound to the original, and goes as in ``copy.deepcopy``.
    for name, value in module.__dict__.items():
        if name != "_compiled_call_impl":
            twin.__dict__[name] = copy.copy(value) if isinstance(value, (dict, set)) else value
    for name, child in module._modules.items():
        twin._modules[name] = None if child is None else _copy_modules(child, copies)
    return twin
