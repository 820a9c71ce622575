"""The kernel vocabulary: every kernel op's schema and shape function, stated once.

A back-end is a namespace (``fusedres_reference``, ``fusedres_cpu``, ...) that implements these
schemas. Two implementations cannot share one dispatch key, hence one namespace each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class KernelOp:
    """One op of the vocabulary: its name, its schema and the shape function behind ``FakeTensor``."""

    name: str
    schema: str
    fake: Callable[..., Any]


KERNEL_OPS: dict[str, KernelOp] = {}

#: Geometry arguments shared by every convolution.
CONV_ARGS = "SymInt[2] stride, SymInt[2] padding, SymInt[2] dilation, SymInt groups"


def kernel_op(name: str, schema: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enter a kernel op in the vocabulary; decorates its shape function."""

    def enter(fake: Callable[..., Any]) -> Callable[..., Any]:
        KERNEL_OPS[name] = KernelOp(name, schema, fake)
        return fake

    return enter


def namespace_of(backend: str) -> str:
    return f"fusedres_{backend}"


def define_backend(backend: str) -> torch.library.Library:
    """Define the whole vocabulary in a back-end's namespace and return the library to implement it in.

    Kernel ops have no gradient: called on a tensor that requires one, they refuse by name. The
    gradients live on the block ops (``fusedres::conv_bn_act``, ``::basic_block``, ...).
    """
    namespace = namespace_of(backend)
    lib = torch.library.Library(namespace, "FRAGMENT")  # type: ignore[no-untyped-call]
    for op in KERNEL_OPS.values():
        lib.define(op.name + op.schema)  # type: ignore[no-untyped-call]
        torch.library.register_fake(f"{namespace}::{op.name}", op.fake, lib=lib)
        lib.impl(op.name, _refuse_gradient(namespace, op.name), "Autograd", with_keyset=True)  # type: ignore[no-untyped-call]
        if "!" in op.schema:
            lib.impl(op.name, _count_writes(namespace, op.name), "ADInplaceOrView", with_keyset=True)  # type: ignore[no-untyped-call]
    return lib


def _tensors(*values: Any) -> list[Tensor]:
    """The tensors among an op's arguments, those in lists too."""
    flat = [v for value in values for v in (value if isinstance(value, (list, tuple)) else (value,))]
    return [v for v in flat if isinstance(v, Tensor)]


def _refuse_gradient(namespace: str, name: str) -> Callable[..., Any]:
    overload = None

    def below_autograd(keyset: torch._C.DispatchKeySet, *args: Any, **kwargs: Any) -> Any:
        nonlocal overload
        if torch.is_grad_enabled() and any(t.requires_grad for t in _tensors(*args, *kwargs.values())):
            raise RuntimeError(
                f"{namespace}::{name} is a kernel and has no gradient: call it under torch.no_grad(), or "
                "differentiate through fusedres.conv_bn_act, basic_block, bottleneck or stem"
            )
        if overload is None:
            overload = getattr(getattr(torch.ops, namespace), name).default
        with torch._C._AutoDispatchBelowAutograd():
            return overload.redispatch(keyset & torch._C._after_autograd_keyset, *args, **kwargs)

    return below_autograd


def _count_writes(namespace: str, name: str) -> Callable[..., Any]:
    """Move the version counters of what an op writes to: a C++ kernel on the stable ABI cannot.

    Autograd and the caches of derived values (``ops/_caches.py``) tell by them that a tensor has changed.
    """

    def below_version_counting(keyset: torch._C.DispatchKeySet, *args: Any) -> None:
        overload = getattr(getattr(torch.ops, namespace), name).default
        with torch._C._AutoDispatchBelowADInplaceOrView():
            overload.redispatch(keyset & torch._C._after_ADInplaceOrView_keyset, *args)
        for argument, value in zip(overload._schema.arguments, args, strict=True):
            if argument.is_write:
                torch.autograd.graph.increment_version(_tensors(value))

    return below_version_counting


def backends_of(spec: str) -> list[str]:
    """The names in ``"cuda,conv_wgrad=triton"``, the one of most ops first."""
    first, *others = spec.split(",")
    return [first, *(other.partition("=")[2] for other in others)]


def kernel(backend: str, name: str) -> Any:
    """The callable that runs kernel op ``name``; ``backend`` is a name, or several as a plan writes them."""
    if "," in backend:
        backend, *others = backend.split(",")
        for other in others:
            op, _, elsewhere = other.partition("=")
            if op == name:
                backend = elsewhere
    return getattr(getattr(torch.ops, namespace_of(backend)), name).default
