"""Values derived from parameters, kept between inferences, and how to forget them.

An entry is used only while every tensor it came from is the same object with the same storage address,
strides and version counter; the entry holds the storage alive, so that an address cannot be used again
meanwhile. A write through ``.data`` moves none of them: :func:`forget` (``fusedres.refresh``) is for that.

Compiled code writes to its intermediates without counting, and one object serves for several of them. So
inside it only what is derived from parameters is kept; :func:`eagerly` says that a call is outside.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from fusedres.ops._mapped import let_go

V = TypeVar("V")

_CALL = threading.local()


def eagerly(op: Callable[..., V], *args: Any) -> V:
    """``op(*args)``; where nothing is being compiled its tensors are their owners' own, and versions tell."""
    if torch.compiler.is_compiling():
        return op(*args)
    outer, _CALL.eager = getattr(_CALL, "eager", False), True
    try:
        return op(*args)
    finally:
        _CALL.eager = outer


def _counts_versions(tensor: Tensor | None) -> bool:
    """Whether no compiled code can have written to it unnoticed."""
    return (
        tensor is None
        or getattr(_CALL, "eager", False)
        or isinstance(tensor, nn.Parameter)
        or hasattr(tensor, _DERIVED)
    )


#: An attribute of tensors that were made here.
_DERIVED = "_fusedres_derived"

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
            marks.append((tensor.data_ptr(), tensor._version, tensor.dtype, tensor.shape, tensor.stride()))
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


class _HangingOnTensors:
    """What hangs on tensors, weakly, under a lock, until they are forgotten."""

    def __init__(self) -> None:
        self._entries = WeakTensorKeyDictionary()
        self._lock = threading.Lock()
        on_forget(self.forget)

    def forget(self, tensors: Iterable[Tensor] | None = None) -> None:
        with self._lock:
            if tensors is None:
                self._entries = WeakTensorKeyDictionary()
            else:
                for tensor in tensors:
                    self._entries.pop(tensor, None)  # type: ignore[no-untyped-call]


class DerivedCache(_HangingOnTensors, Generic[V]):
    """A weak mapping from a tensor to a value derived from it and others, valid while none has changed.

    Several values may hang on one tensor under different ``variant`` keys (a weight packed for two
    input sizes), at most ``limit`` of them: the oldest goes first.
    """

    def __init__(self, limit: int = 8) -> None:
        super().__init__()
        self._limit = limit

    def get(
        self, key: Tensor, others: tuple[Tensor | None, ...], variant: object, make: Callable[[], V]
    ) -> V:
        marks = fingerprint(key, *others) if all(map(_counts_versions, (key, *others))) else None
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

    def __len__(self) -> int:
        return len(self._entries)


class _Affine(NamedTuple):
    sources: tuple[Tensor | None, ...]  # copies
    value: tuple[Tensor, Tensor]


class _AffineCache(_HangingOnTensors):
    """A weak mapping from a BatchNorm's running mean to its affines by ``eps``, valid while values are equal.

    On a CPU a layer's few numbers are compared, in 10 to 20 us: torch's own ``batch_norm`` moves running
    statistics without counting it, compiled code anything. Elsewhere that would wait for the device:
    versions tell.
    """

    def __init__(self) -> None:
        super().__init__()
        self._versions: DerivedCache[tuple[Tensor, Tensor]] = DerivedCache()

    def get(
        self,
        sources: tuple[Tensor, Tensor, Tensor | None, Tensor | None],
        eps: float,
        make: Callable[[], Any],
    ) -> tuple[Tensor, Tensor]:
        """``sources`` are mean, variance, gamma and beta."""
        mean, _, gamma, beta = sources
        if mean.device.type != "cpu":
            # The running statistics of a module whose gamma is its own are its own too.
            own = isinstance(gamma, nn.Parameter) or isinstance(beta, nn.Parameter)
            get = self._versions.get
            return eagerly(get, mean, sources[1:], eps, make) if own else get(mean, sources[1:], eps, make)
        with self._lock:
            kept: _Affine | None = self._entries.get(mean, {}).get(eps)  # type: ignore[no-untyped-call]
        if kept is not None and all(map(_same_values, kept.sources, sources)):
            return kept.value
        copies = tuple(None if t is None else t.detach().clone() for t in sources)
        value: tuple[Tensor, Tensor] = _outside_inference_mode(make)
        for tensor in value:
            setattr(tensor, _DERIVED, True)
        with self._lock:
            by_eps = self._entries.setdefault(mean, {})  # type: ignore[no-untyped-call]
            by_eps[eps] = _Affine(copies, value)
        return value


def _same_values(a: Tensor | None, b: Tensor | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.dtype == b.dtype and torch.equal(a, b)


_AFFINES = _AffineCache()


def running_affine(
    gamma: Tensor | None, beta: Tensor | None, mean: Tensor, var: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """``(scale, shift)`` of BatchNorm in inference, in fp32 (float64 for float64), kept between calls."""

    def make() -> tuple[Tensor, Tensor]:
        _, _, _, scale, shift = frozen_statistics(gamma, beta, mean, var, eps)
        return scale, shift

    return _AFFINES.get((mean, var, gamma, beta), eps, make)


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
