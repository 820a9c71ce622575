"""Whether anything has changed in some modules since they were last read: asked on every recalled call.

Everything that an inference may have read of a module, its attributes, parameters, buffers, submodules and
hooks, is noted by identity and compared in one sweep (``csrc/cpu/watched.cpp``): 150 modules and 267 tensors
of a ResNet-50. A list among the attributes that is changed in place goes unseen.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from operator import attrgetter

from torch import nn

from fusedres._build import load_extension
from fusedres.ops._caches import fingerprint

#: The extension: what ran in it is all that is recalled.
_sweep = cache(partial(load_extension, "_C"))
_METHODS = attrgetter("forward", "__call__")
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Watched:
    """``parts``, whose calls are skipped, and ``owner``, where there is one, whose call is not.

    Only what lies in an instance's dictionaries and in a class's methods is seen, as anywhere in
    :mod:`fusedres.nn`. What is compared by identity is held, so that its address is not used again; of the
    owner, which may end while this is kept, only the attributes.
    """

    def __init__(self, parts: Sequence[nn.Module], owner: nn.Module | None = None) -> None:
        self._parts = [*parts]
        self._owned = owner is not None
        modules = self._of(owner)
        self._own = [module.__dict__ for module in modules]
        self._dicts = [
            d for own in self._own for d in (own, own["_parameters"], own["_buffers"], own["_modules"])
        ]
        self._held = [value for d in self._dicts for value in d.values()]
        self._hooks = [part.__dict__[name] for part in parts for name in _HOOKS]
        self._types = [type(module) for module in modules]
        self._classes = tuple(dict.fromkeys(self._types))
        self._methods = list(map(_METHODS, self._classes))
        self._tensors = [
            tensor
            for part in parts
            for tensor in (*part._parameters.values(), *part._buffers.values())
            if tensor is not None
        ]
        self._marks = fingerprint(*self._tensors)
        self._storages = [t.untyped_storage() for t in self._tensors]

    def _of(self, owner: nn.Module | None) -> list[nn.Module]:
        return [owner, *self._parts] if self._owned and owner is not None else self._parts

    def can_tell(self) -> bool:
        """Whether a change would be seen: no hook sees the parts called, every tensor counts its versions."""
        return self._marks is not None and not any(self._hooks)

    def unchanged(self, owner: nn.Module) -> bool:
        """Whether all is as it was, and nobody could see that the parts are not called."""
        sweep = _sweep()
        modules = self._of(owner)
        return (
            self._marks is not None
            and sweep.same_objects(modules, self._types, self._own, self._dicts, self._held, self._hooks)
            and list(map(_METHODS, self._classes)) == self._methods
            and sweep.same_tensors(self._tensors, self._marks)
        )
