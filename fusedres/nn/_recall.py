"""Inferences remembered whole, so that a call in which nothing has changed asks nothing else.

Reading a bottleneck's modules afresh and checking its twenty tensors takes 0.3 ms a block in Python, 5 of 20
ms of a ResNet-50 in bf16 at batch 1. What was read, and everything that decided how it runs, is noted
instead, by identity, and compared; any difference takes the usual way, which notes it anew. A block, a stem
and a head are remembered by themselves, and what of a model they cover without a gap as one call: between
two blocks Python finds nothing of its own in the caches, and takes 0.3 ms to go from one to the next. A
model's first call is rehearsed, so that it is one as well.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import NamedTuple, TypeVar
from weakref import ref

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from fusedres import plan
from fusedres._settings import BACKEND, PRECISION, state
from fusedres.nn._parts import unobserved
from fusedres.nn._watched import Watched
from fusedres.ops._caches import on_forget
from fusedres.ops._dispatch import Prepared
from fusedres.ops._planned import Choice
from fusedres.ops._prepared import (
    NotPreparedError,
    nothing_watches,
    prepared_seen,
    rehearsal,
    rehearsing,
    run,
)

T = TypeVar("T", bound="Tensor | None")

#: Notes kept of one module: a model has five for each input size, of its stem, stages, head and their joins.
KEPT = 20

_Circumstances = tuple[object, ...]

#: Moved by every :func:`forget`: a note whose run began before is not kept.
_FORGOTTEN = [0]
_LOCK = threading.Lock()


@dataclass(frozen=True)
class _Note:
    """What ran, and what must be as it was."""

    run: Prepared
    watched: Watched


#: ``None``: nothing could be noted beforehand.
_Notes = dict[_Circumstances, _Note | None]

#: By a module's ``id``, which costs a quarter of what ``WeakKeyDictionary`` does. A note ends with its module
#: or when it no longer holds; it holds a module's parts, so one that these refer to by an attribute stays.
_NOTES: dict[int, tuple[ref[nn.Module], _Notes]] = {}


def _forget(tensors: Iterable[Tensor] | None) -> None:
    with _LOCK:
        _FORGOTTEN[0] += 1
        _NOTES.clear()  # cheap to note again


on_forget(_forget)


def _recalled(owner: nn.Module, circumstances: _Circumstances) -> _Note | None:
    known = _NOTES.get(id(owner))
    if known is None or known[0]() is not owner:
        return None
    note = known[1].get(circumstances)
    if note is None or note.watched.unchanged(owner):
        return note
    with _LOCK:
        known[1].pop(circumstances, None)
    return None


def _keep(owner: nn.Module, circumstances: _Circumstances, note: _Note | None, forgotten: int) -> None:
    with _LOCK:
        if _FORGOTTEN[0] != forgotten:
            return
        known = _NOTES.get(id(owner))
        notes = known[1] if known is not None and known[0]() is owner else {}
        while len(notes) >= KEPT:
            del notes[next(iter(notes))]
        notes[circumstances] = note
        everyone, address = _NOTES, id(owner)  # names of a module are gone when the interpreter ends
        everyone[address] = ref(owner, lambda _: everyone.pop(address, None)), notes


# --- one block -----------------------------------------------------------------------------------------


def recall(
    block: nn.Module, x: Tensor, choice: Choice, parts: Sequence[nn.Module] | None = None
) -> Tensor | None:
    """``block(x)`` by what ran it on inputs like ``x`` before, if nothing that it read has changed since.

    Args:
        parts: those of ``block`` that the call stands for; default: all of it.
    """
    if torch.compiler.is_compiling() or id(block) not in _NOTES or not nothing_watches(x):
        return None
    note = _recalled(block, _of_block(x, choice, parts))
    if note is None:
        return None
    _passed(note, block, parts or [block])
    return run(note.run, x)


def noting(
    block: nn.Module,
    x: Tensor,
    choice: Choice,
    call: Callable[[], T],
    parts: Sequence[nn.Module] | None = None,
) -> T:
    """``call()``, which is ``block(x)``; what ran it, if that can run alone, is noted for :func:`recall`."""
    # Only the CPU's back-end prepares blocks. Others would pay for the look at their modules in vain.
    if torch.compiler.is_compiling() or x.device.type != "cpu" or not nothing_watches(x):
        return call()
    forgotten = _FORGOTTEN[0]
    # Before the call: what changes while it runs has changed since.
    watched = Watched([*block.modules()][1:], block) if parts is None else Watched(parts)
    with prepared_seen() as ready:
        out = call()
    if ready and watched.can_tell():
        note = _Note(ready[0], watched)
        _keep(block, _of_block(x, choice, parts), note, forgotten)
        _passed(note, block, parts or [block])
    return out


def _of_block(x: Tensor, choice: Choice, parts: Sequence[nn.Module] | None) -> _Circumstances:
    switches = BACKEND.get(), PRECISION.get(), choice, torch.get_num_threads()
    return x.shape, x.dtype, x.device, *switches, *map(id, parts or ())


# --- a whole model ----------------------------------------------------------------------------------

_PASSED = threading.local()


class _Pass(NamedTuple):
    """What ran for ``owner``, and the modules whose calls that stood for."""

    note: _Note
    owner: nn.Module
    parts: Sequence[nn.Module]

    def holds(self) -> bool:
        return self.note.watched.unchanged(self.owner)


@contextmanager
def _passes() -> Iterator[list[_Pass]]:
    """What this thread runs inside the context by notes, in order."""
    outer, _PASSED.notes = getattr(_PASSED, "notes", None), []
    try:
        yield _PASSED.notes
    finally:
        _PASSED.notes = outer


def _passed(note: _Note, owner: nn.Module, parts: Sequence[nn.Module]) -> None:
    notes = getattr(_PASSED, "notes", None)
    if notes is not None:
        notes.append(_Pass(note, owner, parts))


#: The classes whose call is their notes' run and nothing else, as long as nobody patches them.
_PLAIN: dict[type[nn.Module], tuple[object, object]] = {}


def plain(cls: type[nn.Module]) -> None:
    """Say that calling a ``cls`` is its ``forward`` as it stands now; subclasses say nothing."""
    _PLAIN[cls] = cls.__call__, cls.forward


plain(nn.Sequential)


def is_plain(module: nn.Module) -> bool:
    """Whether ``module`` is of such a class, as it was, and nobody sees it called."""
    cls = type(module)
    return _PLAIN.get(cls) == (cls.__call__, cls.forward) and unobserved(module)


def through(owner: nn.Module, parts: Sequence[nn.Module], x: Tensor, call: Callable[[], T]) -> T | Tensor:
    """``call()``, which takes ``x`` through ``parts``: as one call, once all that ran was seen to allow it.

    It does where blocks in plain ``nn.Sequential``, and what ``owner`` runs in place of others, were noted.

    Args:
        parts: submodules of ``owner``, in the order in which ``call`` runs them, and all that it runs.
    """
    # The device last: an fx.Proxy has none, and is told by what nothing_watches() asks first.
    if torch.compiler.is_compiling() or not nothing_watches(x) or x.device.type != "cpu":
        return call()
    generation = plan.generation()
    if generation is None or _has_any_global_hook():  # type: ignore[no-untyped-call]
        return call()
    switches = state(), generation, torch.get_num_threads(), owner.__dict__.get("_composition")
    circumstances = x.shape, x.stride(), x.dtype, x.device, *switches, *map(id, parts)
    known = _recalled(owner, circumstances)
    if known is not None and all(map(is_plain, _stages(parts))):
        _passed(known, owner, parts)
        return run(known.run, x)
    rehearsed = _rehearsed(owner, circumstances, parts, call)
    if rehearsed is not None:
        _passed(rehearsed, owner, parts)
        return run(rehearsed.run, x)
    forgotten = _FORGOTTEN[0]
    with _passes() as passes:
        out = call()
    note = _joined(parts, passes)
    if note is not None:
        _keep(owner, circumstances, note, forgotten)
        _passed(note, owner, parts)
    return out


def _rehearsed(
    owner: nn.Module, circumstances: _Circumstances, parts: Sequence[nn.Module], call: Callable[[], object]
) -> _Note | None:
    """What ``call()`` would run, as one and before any of it has run, or ``None``.

    Block by block the first call of a model would hold whole maps that the next ones, as one, never have.
    """
    known = _NOTES.get(id(owner))
    tried = known is not None and known[0]() is owner and circumstances in known[1]
    if tried or rehearsing() or not _are_plain(parts):  # nobody else's code is to see stand-ins
        return None
    forgotten = _FORGOTTEN[0]
    note = None
    with _passes() as passes, rehearsal(), suppress(NotPreparedError):
        call()
        note = _joined(parts, passes)
    _keep(owner, circumstances, note, forgotten)
    return note


def _stages(parts: Sequence[nn.Module]) -> list[nn.Sequential]:
    return [part for part in parts if isinstance(part, nn.Sequential)]


def _are_plain(parts: Sequence[nn.Module]) -> bool:
    """Whether the stages of ``parts`` and their blocks are plain."""
    blocks = [block for stage in _stages(parts) for block in stage]
    return all(map(is_plain, [*_stages(parts), *blocks]))


def _units(parts: Iterable[nn.Module]) -> list[nn.Module]:
    """``parts``, the blocks of a stage in place of it."""
    return [unit for part in parts for unit in (part if isinstance(part, nn.Sequential) else [part])]


def _joined(parts: Sequence[nn.Module], passes: Sequence[_Pass]) -> _Note | None:
    """What ran ``parts``, as one, if it ran all of them and nothing else did."""
    ran = _units(part for each in passes for part in each.parts)
    if not passes or ran != _units(parts) or not _are_plain(parts):
        return None
    first, *others = (each.note.run for each in passes)
    together = first.joined(others)
    if together is None:
        return None
    watched = Watched([module for part in parts for module in part.modules()])
    # The notes of what passed are older: where they hold, nothing has changed since they ran.
    if not watched.can_tell() or not all(each.holds() for each in passes):
        return None
    return _Note(together, watched)
