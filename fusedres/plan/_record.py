"""A look-up that goes another way for a while: to a choice that is tried, or past a recorder of blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from torch import Tensor, nn

from fusedres.ops._planned import Choice
from fusedres.plan._block import Block


@dataclass
class Seen:
    """A block that ran while a recorder was looking: its module, its input, and its plain values."""

    block: Block
    module: nn.Module
    x: Tensor


@dataclass
class Recorder:
    """Notes every distinct block of a run, and which modules it stands for."""

    seen: dict[str, Seen] = field(default_factory=dict)
    modules: dict[str, list[nn.Module]] = field(default_factory=dict)


#: What tuning tries, or what notes the blocks that run; else the plan in force decides.
SESSION: ContextVar[Choice | Recorder | None] = ContextVar("session", default=None)


@contextmanager
def forced(choice: Choice) -> Iterator[None]:
    """Run every fused module inside the context by ``choice``, whatever a plan says."""
    token = SESSION.set(choice)
    try:
        yield
    finally:
        SESSION.reset(token)


def record(run: Callable[[], object]) -> Recorder:
    """The distinct blocks of a run of eager code, which goes by the plan in force."""
    recorder = Recorder()
    token = SESSION.set(recorder)
    try:
        run()
    finally:
        SESSION.reset(token)
    return recorder
