"""Values derived from parameters, kept between inferences, and how to forget them.

An entry is used only while every tensor it came from is the same object with the same storage address
and version counter; the entry holds the storage alive, so that an address cannot be used again
meanwhile. A write through ``.data`` moves neither: :func:`forget` (``fusedres.refresh``) is for that.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from fusedres.ops._mapped import let_go

V = TypeVar("V")

_FORGETTERS: list[Callable[[Iterable[Tensor] | None], None]] = []


def on_forget(forgetter: Callable[[Iterable[Tensor] | None], None]) -> None:
    """Have ``forgetter`` called by :func:`forget`."""
    _FORGETTERS.append(forgetter)


def forget(tensors: Iterable[Tensor] | None = None) -> None:
    """Drop what was derived from these parameters and buffers, or everything."""
    kept = None if tensors is None else list(tensors)
    for forgetter in _FORGETTERS:
        forgetter(kept)


def fingerprint(*tensors: Tensor | None) -> tuple[object, ...] | None:
    """What tells whether tensors have changed, or ``None`` where that cannot be told.

    Tensors made in inference mode count no versions: a change in place would go unseen.
    """
    marks: list[object] = []
    for tensor in tensors:
        if tensor is None:
            marks.append(None)
        elif tensor.is_inference():
            return None
        else:
            marks.append((tensor.data_ptr(), tensor._version, tensor.dtype, tensor.shape))
    return tuple(marks)


def _outside_inference_mode(make: Callable[[], V]) -> V:
    """What is kept must count versions: weights packed with an affine hang on it, and are kept too."""
    if not torch.is_inference_mode_enabled():
        return make()
    with torch.inference_mode(False), torch.no_grad():
        return make()


class _Entry(NamedTuple):
    marks: tuple[object, ...]
    storages: tuple[object, ...]
    value: object


class DerivedCache(Generic[V]):
    """A weak mapping from a tensor to a value derived from it and others, valid while none has changed.

    Several values may hang on one tensor under different ``variant`` keys (a weight packed for two
    input sizes), at most ``limit`` of them: the oldest goes first.
    """

    def __init__(self, limit: int = 8) -> None:
        self._limit = limit
        self._entries = WeakTensorKeyDictionary()
        self._lock = threading.Lock()
        on_forget(self.forget)

    def get(
        self, key: Tensor, others: tuple[Tensor | None, ...], variant: object, make: Callable[[], V]
    ) -> V:
        marks = fingerprint(key, *others)
        if marks is None:
            return make()
        with self._lock:
            entry = self._entries.get(key, {}).get(variant)  # type: ignore[no-untyped-call]
        if entry is not None and entry.marks == marks:
            return entry.value  # type: ignore[no-any-return]
        value = _outside_inference_mode(make)
        let_go((key, *others))  # what was derived is kept: they are not read again
        storages = tuple(t.untyped_storage() for t in (key, *others) if t is not None)
        with self._lock:
            variants = self._entries.setdefault(key, {})  # type: ignore[no-untyped-call]
            variants.pop(variant, None)
            while len(variants) >= self._limit:
                del variants[next(iter(variants))]
            variants[variant] = _Entry(marks, storages, value)
        return value

    def forget(self, tensors: Iterable[Tensor] | None = None) -> None:
        with self._lock:
            if tensors is None:
                self._entries = WeakTensorKeyDictionary()
            else:
                for tensor in tensors:
                    self._entries.pop(tensor, None)  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return len(self._entries)


_AFFINES: DerivedCache[tuple[Tensor, Tensor]] = DerivedCache()


def running_affine(
    gamma: Tensor | None, beta: Tensor | None, mean: Tensor, var: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """``(scale, shift)`` of BatchNorm in inference, in fp32 (float64 for float64), kept between calls."""

    def make() -> tuple[Tensor, Tensor]:
        _, _, _, scale, shift = frozen_statistics(gamma, beta, mean, var, eps)
        return scale, shift

    return _AFFINES.get(mean, (var, gamma, beta), eps, make)


def frozen_statistics(
    gamma: Tensor | None, beta: Tensor | None, mean: Tensor, var: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(mean, var, invstd, scale, shift) of frozen BatchNorm: what ``bn_finalize`` returns for a batch."""
    dtype = torch.float64 if mean.dtype == torch.float64 else torch.float32
    # C numbers each: float64 costs nothing here, and every value and gradient of the layer hangs on them.
    mu, sigma2 = mean.double(), var.double()
    invstd = (sigma2 + eps).rsqrt()
    scale = invstd if gamma is None else gamma.double() * invstd
    shift = -mu * scale if beta is None else beta.double() - mu * scale
    a, b, c, d, e = (v.to(dtype, copy=True) for v in (mu, sigma2, invstd, scale, shift))
    return a, b, c, d, e
