"""Which choice a block runs by: asked by every fused module on every call, so it has to be cheap.

``recall`` is a dictionary look-up by what lies outside the module (about 2 µs). Only where it knows nothing
does the module work out its geometry and ask ``resolve``, which looks into the plan in force.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Protocol
from weakref import ref

import torch
from torch import Tensor, nn

from fusedres._settings import BACKEND, COMPOSITION, MEMORY, PRECISION, state
from fusedres.ops._caches import forget
from fusedres.ops._dispatch import can_serve
from fusedres.ops._planned import CONVOLUTIONS, TILES, Choice
from fusedres.plan import _store
from fusedres.plan._block import Block, LayerShape
from fusedres.plan._device import identity
from fusedres.plan._plan import Entry, Plan, empty
from fusedres.plan._record import SESSION, Recorder, Seen

#: Nothing was decided: the default rules hold.
DEFAULT = Choice()
#: Nothing is known yet: ``resolve`` has to be asked.
UNKNOWN = Choice("unknown", "unknown")

#: Input sizes kept for one module; detection models see a new one with every image.
SITUATIONS_KEPT = 64


class Layer(Protocol):
    """What a plan wants to know of a module's convolution and BatchNorm."""

    @property
    def tensors(self) -> Any: ...
    @property
    def training(self) -> bool: ...
    @property
    def geometry(self) -> tuple[Any, ...]: ...


_LOCK = threading.RLock()
_IN_FORCE: dict[str, Plan] = {}
#: By a module's ``id``, which costs a quarter of what ``WeakKeyDictionary`` does.
_KNOWN: dict[int, tuple[ref[nn.Module], dict[tuple[object, ...], Choice]]] = {}
#: Moved by every change of a plan, so that compiled code, which guards on it, asks again.
_GENERATION = [0]


# --- plans in force ----------------------------------------------------------------------------------


def in_force(device: torch.device) -> Plan:
    """The plan that holds on ``device``; first asked for, it is read from the cache folder."""
    name = identity(device)
    plan = _IN_FORCE.get(name)
    if plan is None:
        with _LOCK:
            plan = _IN_FORCE.get(name)
            if plan is None:
                plan = empty(device)
                path = _store.path_of(plan)
                if path is not None:
                    plan = _store.read_or_report(path, plan)
                put_in_force(plan)
    return plan


def put_in_force(plan: Plan) -> None:
    """Have ``plan`` hold on its device from now on, in place of any other."""
    with _LOCK:
        _IN_FORCE[plan.device] = plan
        _spread()


def clear() -> None:
    """Leave every plan; the next look-up reads the cache folder again."""
    with _LOCK:
        _IN_FORCE.clear()
        _spread()


def _spread() -> None:
    """Hand the plans' parts to where they are looked up, and forget what was derived by others."""
    convolutions = {key: a.algorithm for plan in _IN_FORCE.values() for key, a in plan.convolutions.items()}
    if convolutions != CONVOLUTIONS:
        CONVOLUTIONS.clear()
        CONVOLUTIONS.update(convolutions)
        forget()  # weights packed for another algorithm
    TILES.clear()
    for plan in _IN_FORCE.values():
        TILES.update(plan.tiles)
    forget_known()


def forget_known() -> None:
    global _KNOWN
    _KNOWN = {}
    _GENERATION[0] += 1


# --- look-up -----------------------------------------------------------------------------------------


def generation() -> int | None:
    """A number that every change of a plan moves; ``None`` while a plan is being made."""
    return _GENERATION[0] if SESSION.get() is None else None


def recall(module: nn.Module, x: Tensor, composition: str | None) -> Choice:
    """What is known for ``module`` on inputs like ``x``: a plan's choice, :data:`DEFAULT` or :data:`UNKNOWN`.

    ``composition`` is the module's attribute; where something chose one, no plan is asked.
    """
    if torch.compiler.is_compiling():
        return UNKNOWN
    if COMPOSITION.get(composition) != "auto":
        return DEFAULT
    session = SESSION.get()
    if session is not None:
        return session if isinstance(session, Choice) else UNKNOWN
    known = _KNOWN.get(id(module))
    if known is None or known[0]() is not module:
        return UNKNOWN
    return known[1].get(_situation(module, x), UNKNOWN)


def resolve(
    module: nn.Module,
    x: Tensor,
    composition: str | None,
    kind: str,
    layers: Sequence[Layer],
    skip: Layer | None = None,
) -> Choice:
    """The plan's choice for a block, looked up and then remembered; :data:`DEFAULT` where it has none.

    Args:
        kind: "basic_block", "bottleneck" or "stem".
        layers, skip: its chain, and the downsample's layer.
    """
    if COMPOSITION.get(composition) != "auto":
        return DEFAULT
    every = layers if skip is None else [*layers, skip]
    values = (kind, tuple(x.shape), _shapes(every), skip is not None, *_switches(x, every[0].training))
    if torch.compiler.is_compiling():
        from torch.fx.experimental.symbolic_shapes import has_static_value  # slow: it imports sympy

        if not all(has_static_value(size) for size in x.shape):
            return DEFAULT
        return Choice(*_constant(x.device, _GENERATION[0], *values))
    block = _block(*values)
    session = SESSION.get()
    if isinstance(session, Recorder):
        name = str(block)
        session.seen.setdefault(name, Seen(block, module, x.detach().requires_grad_(x.requires_grad)))
        session.modules.setdefault(name, []).append(module)
    choice = planned(block, x.device)
    _remember(module, x, choice)
    return choice


def _remember(module: nn.Module, x: Tensor, choice: Choice) -> None:
    with _LOCK:
        everyone, own = _KNOWN, id(module)
        known = everyone.get(own)
        if known is None or known[0]() is not module:
            known = everyone[own] = ref(module, lambda gone: everyone.pop(own, None)), {}
        if len(known[1]) >= SITUATIONS_KEPT:
            known[1].clear()
        known[1][_situation(module, x)] = choice


@torch._dynamo.assume_constant_result  # type: ignore[untyped-decorator]
def _constant(device: torch.device, generation: int, *values: Any) -> tuple[str, str]:
    """The look-up while compiling, run once; ``generation`` is what the compiled code guards on."""
    composition, backend = planned(_block(*values), device)
    return composition, backend


def planned(block: Block, device: torch.device) -> Choice:
    """The choice of the plan in force, or :data:`DEFAULT` where it has none that can run here."""
    entry: Entry | None = in_force(device).blocks.get(str(block))
    if entry is None or not can_serve(entry.choice, device, block.compute_dtype):
        return DEFAULT
    return entry.choice


def _situation(module: nn.Module, x: Tensor) -> tuple[object, ...]:
    """All that can change between two calls of a module, asked in the cheapest way: every call asks."""
    norm = module._modules.get("bn1")
    return (
        x.shape,
        x.stride(),
        x.dtype,
        x.device,
        norm is not None and norm.training,
        torch.is_grad_enabled(),
        torch.get_num_threads(),
        _autocast(x.device.type) if torch._C._is_any_autocast_enabled() else None,
        state(),
    )


def _autocast(device: str) -> torch.dtype | None:
    """The dtype autocast asks for, where it is on."""
    on = device != "meta" and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if on else None


def _switches(x: Tensor, training: bool) -> tuple[Any, ...]:
    """A block's plain values beside its shapes, in a form that may also be traced."""
    device = x.device.type
    autocast = None if x.dtype == torch.float64 else _autocast(device)
    mode = "train" if training else ("frozen" if torch.is_grad_enabled() else "infer")
    return (
        mode,
        autocast or x.dtype,
        autocast is not None,
        x.is_contiguous(memory_format=torch.channels_last),
        device == "cpu",
        BACKEND.get(),
        PRECISION.get(),
        MEMORY.get(),
    )


def _shapes(layers: Sequence[Layer]) -> tuple[LayerShape, ...]:
    shapes = []
    for layer in layers:
        _, stride, padding, dilation, groups = layer.geometry
        shapes.append((*layer.tensors.weight.shape, *stride, *padding, *dilation, groups))
    return tuple(shapes)


def _block(
    kind: str,
    x: tuple[int, ...],
    layers: tuple[LayerShape, ...],
    skip: bool,
    mode: str,
    dtype: torch.dtype,
    autocast: bool,
    channels_last: bool,
    on_cpu: bool,
    backend: str,
    precision: str,
    memory: str,
) -> Block:
    name = str(dtype).removeprefix("torch.")
    return Block(
        kind,
        tuple(x),
        layers,
        skip,
        mode,
        f"autocast {name}" if autocast else name,
        "nhwc" if channels_last else "nchw",
        torch.get_num_threads() if on_cpu else 0,
        backend,
        precision,
        memory,
    )
