"""Inference decided beforehand: a block's checks, affines and packed weights, kept while nothing changes.

Checking a bottleneck's twenty tensors and passing them down through its ops takes a third of the time that
the block itself does in bf16 at batch 1. Outside autograd and tracing, a back-end that can prepares the whole
block once, as a function of ``x`` alone; any change to a parameter, a buffer or the input's size prepares
it anew, with all checks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.autograd import forward_ad

from fusedres._settings import PRECISION
from fusedres.ops import _checks
from fusedres.ops._caches import DerivedCache, eagerly
from fusedres.ops._dispatch import BACKENDS, Prepared, resolve_backend
from fusedres.ops._residual import Layer

_SEEN = threading.local()


@contextmanager
def prepared_seen() -> Iterator[list[Prepared]]:
    """What prepared inferences this thread runs inside the context."""
    outer, _SEEN.blocks = getattr(_SEEN, "blocks", None), []
    try:
        yield _SEEN.blocks
    finally:
        _SEEN.blocks = outer


def run(ready: Prepared, x: Tensor) -> Tensor:
    """``ready(x)``, of which :func:`prepared_seen` is told; inside :func:`rehearsal` a stand-in for it."""
    blocks = getattr(_SEEN, "blocks", None)
    if blocks is not None:
        blocks.append(ready)
    return _stand_in(ready, x) if rehearsing() else ready(_checks.nhwc(x))


class NotPreparedError(Exception):
    """A rehearsal came to what only a run can do."""


@contextmanager
def rehearsal() -> Iterator[None]:
    """Inside it this thread prepares inferences and runs none: results are memory that nobody has touched.

    Raises:
        NotPreparedError: something else would compute.
    """
    outer, _SEEN.rehearsing = rehearsing(), True
    try:
        yield
    finally:
        _SEEN.rehearsing = outer


def rehearsing() -> bool:
    """Whether this thread is inside :func:`rehearsal`."""
    return getattr(_SEEN, "rehearsing", False)


def only_prepared() -> None:
    """To be called before anything computes but what is prepared: a rehearsal ends here."""
    if rehearsing():
        raise NotPreparedError


def _stand_in(ready: Prepared, x: Tensor) -> Tensor:
    form = torch.channels_last if len(ready.shape) == 4 else torch.contiguous_format
    return torch.empty(ready.shape, dtype=x.dtype, device=x.device, memory_format=form)


_BLOCKS: DerivedCache[Prepared | None] = DerivedCache(4)


def nothing_watches(x: Tensor) -> bool:
    """Whether a call on ``x`` is plain eager inference: no gradient, tracer, mode or autocast."""
    return (
        type(x) is Tensor
        and x.device.type != "meta"  # which autocast does not know
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # type: ignore[no-untyped-call]
        and not torch._C._len_torch_dispatch_stack()
        and not torch._C._are_functorch_transforms_active()
        and not torch.is_autocast_enabled(x.device.type)
        and forward_ad._current_level < 0
    )


def prepared_block(
    backend: str,
    x: Tensor,
    chain: Sequence[Layer],
    downsample: Layer | None,
    counters: Sequence[Tensor | None],
    check: Callable[[], object],
) -> Prepared | None:
    """A function from ``x`` to the block's output with frozen BatchNorm, or ``None``: go the usual way.

    Args:
        counters: the layers' ``num_batches_tracked``: torch's own ``batch_norm`` moves a module's running
            statistics without counting it, and this beside them.
        check: raises where an argument does not fit; called before anything is prepared.
    """
    prepare = BACKENDS[backend].prepare_block
    if prepare is None:
        return None
    layers = [*chain, downsample] if downsample is not None else chain
    kind = downsample is None
    return _prepared(backend, x, layers, kind, counters, check, lambda: prepare(x, chain, downsample))


def prepared_stem(
    backend: str, x: Tensor, layer: Layer, counter: Tensor | None, check: Callable[[], object]
) -> Prepared | None:
    """The same for a stem, whose pooling has no choices."""
    prepare = BACKENDS[backend].prepare_stem
    if prepare is None:
        return None
    return _prepared(backend, x, [layer], "stem", [counter], check, lambda: prepare(x, layer))


def infer_head(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor | None:
    """``linear(x.mean((2, 3)), weight, bias)`` by a back-end that has it as one call, or ``None``.

    Only where :func:`nothing_watches`.
    """
    prepare = BACKENDS[resolve_backend(x)].prepare_head
    if prepare is None or (ready := prepare(x, weight, bias)) is None:
        return None
    return run(ready, x)


def _prepared(
    backend: str,
    x: Tensor,
    layers: Sequence[Layer],
    kind: object,
    counters: Sequence[Tensor | None],
    check: Callable[[], object],
    prepare: Callable[[], Prepared | None],
) -> Prepared | None:
    if any(layer.running_mean is None for layer in layers):
        return None

    def make() -> Prepared | None:
        check()
        return prepare() if x.numel() > 0 else None

    first, *others = (tensor for layer in layers for tensor in layer[:5])
    assert first is not None
    constants = tuple((layer.eps, layer.geometry) for layer in layers)
    # Threads: a plan may choose another algorithm for another number of them.
    switches = backend, PRECISION.get(), torch.get_num_threads()
    variant = (*switches, x.shape, x.dtype, kind, constants)
    try:
        return eagerly(_BLOCKS.get, first, (*others, *counters), variant, make)
    except AttributeError:  # what is no tensor has no version
        check()
        raise
