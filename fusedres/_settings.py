"""The switches a user can turn: back-end, composition, memory and precision.

A context (``with fusedres.backend("cpu")``) beats an attribute (``model.composition``), which beats the
process's choice (``fusedres.set_backend``), which beats the environment, which beats ``default``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

#: Every switch turned by a context that is open now, in order; and how often one was turned for the process.
#: What looks up by the state of all switches asks these two: one by one they cost a microsecond.
_OPEN: ContextVar[tuple[str, ...]] = ContextVar("open", default=())
_PROCESS_CHANGES = [0]


def state() -> tuple[object, ...]:
    """A key that differs wherever a switch does."""
    return _OPEN.get(), _PROCESS_CHANGES[0]


class Setting:
    """One switch: its allowed values, and where its present value comes from."""

    def __init__(self, name: str, choices: tuple[str, ...], env: str | None = None) -> None:
        self.name = name
        self.choices = choices
        self.env = env
        self._context: ContextVar[str | None] = ContextVar(name, default=None)
        self._process: str | None = None
        # Read now, refused where it would hold: the command line has to start to say what is wrong with it.
        self._environment = (os.environ.get(env) if env else None) or choices[0]
        self._refused = self._environment not in choices

    def check(self, value: str, source: str | None = None) -> str:
        """``value`` if it is one of the choices; else a ValueError that names ``source`` and lists them."""
        if value not in self.choices:
            choices = ", ".join(repr(c) for c in self.choices)
            raise ValueError(f"{source or 'fusedres.' + self.name}: must be one of {choices}; got {value!r}")
        return value

    def get(self, attribute: str | None = None) -> str:
        """The value in force; ``attribute`` is the object's own wish, where it has one.

        Raises:
            ValueError: it is the environment's, and none of the choices.
        """
        chosen = self._context.get() or attribute or self._process
        if chosen is None and self._refused:
            self.check(self._environment, self.env)
        return chosen or self._environment

    def set(self, value: str | None) -> None:
        """Choose for the whole process; ``None`` goes back to the environment or the default."""
        self._process = None if value is None else self.check(value)
        _PROCESS_CHANGES[0] += 1

    @contextmanager
    def using(self, value: str) -> Iterator[None]:
        token = self._context.set(self.check(value))
        opened = _OPEN.set((*_OPEN.get(), f"{self.name}={value}"))
        try:
            yield
        finally:
            _OPEN.reset(opened)
            self._context.reset(token)


def as_it_was(setting: Setting, value: str) -> AbstractContextManager[None]:
    """``setting`` at ``value``, which a forward noted, for what runs later: its backward, compiled code."""
    return nullcontext() if setting.get() == value else setting.using(value)


BACKEND = Setting("backend", ("auto", "reference", "cpu", "cuda", "triton"), "FUSEDRES_BACKEND")
COMPOSITION = Setting(
    "composition", ("auto", "plain", "pointwise", "stats", "mainloop"), "FUSEDRES_COMPOSITION"
)
MEMORY = Setting("memory", ("save", "recompute"))
PRECISION = Setting("precision", ("default", "fast"), "FUSEDRES_PRECISION")


def autotune() -> bool | None:
    """What ``FUSEDRES_AUTOTUNE`` says now, ``None`` where it is unset or empty.

    Raises:
        ValueError: it is neither 0 nor 1.
    """
    wish = os.environ.get("FUSEDRES_AUTOTUNE", "")
    if wish not in {"", "0", "1"}:
        raise ValueError(f"FUSEDRES_AUTOTUNE: must be 0 or 1; got {wish!r}")
    return wish == "1" if wish else None


def backend(name: str) -> AbstractContextManager[None]:
    """Run what is inside on one back-end: ``"auto"``, ``"reference"``, ``"cpu"``, ``"cuda"`` or ``"triton"``.

    Enter it outside compiled code. A forward keeps its back-end for its backward.

    Raises:
        ValueError: an unknown name. A back-end that cannot serve says why when it is first called.
    """
    BACKEND.check(name)
    return BACKEND.using(name)


def set_backend(name: str | None) -> None:
    """Choose the back-end for the whole process; ``None`` undoes it. See :func:`backend`.

    Raises:
        ValueError: an unknown name.
    """
    BACKEND.set(name)


def composition(name: str) -> AbstractContextManager[None]:
    """How blocks are composed in training inside the context.

    ``"plain"`` is torchvision's own forward; ``"pointwise"`` takes the library's convolution and fuses
    everything else; ``"stats"`` takes statistics in the convolution's epilogue; ``"mainloop"`` also
    applies affine + ReLU inside the next convolution; ``"auto"`` leaves it to the plan.

    Raises:
        ValueError: an unknown name.
    """
    COMPOSITION.check(name)
    return COMPOSITION.using(name)


def memory(name: str) -> AbstractContextManager[None]:
    """What a training forward keeps: ``"save"``, or ``"recompute"`` a bottleneck's last 1×1 in backward.

    Raises:
        ValueError: an unknown name.
    """
    MEMORY.check(name)
    return MEMORY.using(name)


def precision(name: str) -> AbstractContextManager[None]:
    """``"default"`` keeps the 2× rule; ``"fast"`` allows algorithms with an error of their own.

    ``docs/numerics.md`` states each one's: today, on a CPU, Winograd's F(4×4, 3×3) and products of two
    bf16 parts in fp32, and Winograd's F(2×2, 3×3) in bf16. Where a back-end has none for a layer, ``"fast"``
    changes nothing. Enter it outside compiled code. A forward keeps its precision for its backward.

    Raises:
        ValueError: an unknown name.
    """
    PRECISION.check(name)
    return PRECISION.using(name)


def set_precision(name: str | None) -> None:
    """Choose the precision for the whole process; ``None`` undoes it. See :func:`precision`.

    Raises:
        ValueError: an unknown name.
    """
    PRECISION.set(name)
