"""Every op that runs on the stand-in device: its launches with their counters, the bytes it must move."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from ptxemu import torch_mock
from torch import Tensor

from fusedres.ops._registry import KERNEL_OPS

#: The names of what a convolution reads its pixels from.
SOURCES = ("x", "input")


class Recorder:
    """Notes each kernel op of ``namespace`` with the launches it made, and each aten op that moves values.

    The stand-in device appends a line a launch to the file that PTXEMU_COUNTERS names; what appeared there
    while an op ran is the op's. Of ops within an op, each has its own.
    """

    def __init__(self, namespace: str) -> None:
        self.calls: list[dict[str, Any]] = []
        self._namespace = getattr(torch.ops, namespace)
        self._log = Path(os.environ["PTXEMU_COUNTERS"])
        self._read = self._log.stat().st_size if self._log.exists() else 0
        self._own: dict[str, Any] = {}

    def __enter__(self) -> Recorder:
        for name in KERNEL_OPS:
            packet = getattr(self._namespace, name)
            self._own[name] = packet.default
            packet.default = _Watched(packet.default, self)
        torch_mock.observers.append(self._saw_aten)
        return self

    def __exit__(self, *_: object) -> None:
        for name, overload in self._own.items():
            getattr(self._namespace, name).default = overload
        torch_mock.observers.remove(self._saw_aten)

    def ran(self, overload: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> None:
        launches = self._new_launches()
        if not launches:  # made of other ops, which were noted
            return
        self._note(overload._schema.name.partition("::")[2], overload, args, kwargs, out, launches)

    def _saw_aten(self, overload: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> None:
        name = overload._schema.name.partition("::")[2]
        if nbytes([args, out]):
            self._note(f"aten {name}", overload, args, kwargs, out, [])

    def _note(
        self, name: str, overload: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Any,
        launches: list[dict[str, Any]],
    ) -> None:  # fmt: skip
        named = dict(zip([a.name for a in overload._schema.arguments], args, strict=False)) | kwargs
        shapes = {key: list(v.shape) for key, v in named.items() if isinstance(v, Tensor) and v.numel()}
        moved = must_move(name.removeprefix("aten "), named, out)
        first = tensors(out)[:1]
        self.calls.append(
            {
                "op": name, "shapes": shapes, "must_move": moved, "result": nbytes(first),
                "launches": launches,
            }
        )  # fmt: skip

    def _new_launches(self) -> list[dict[str, Any]]:
        if not self._log.exists():
            return []
        with self._log.open() as file:
            file.seek(self._read)
            lines = file.readlines()
            self._read = file.tell()
        return [json.loads(line) for line in lines]


class _Watched:
    """An op's overload that tells a recorder of its calls."""

    def __init__(self, overload: Any, recorder: Recorder) -> None:
        self._overload = overload
        self._recorder = recorder

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        out = self._overload(*args, **kwargs)
        if hasattr(self._overload, "_schema"):  # else a Python function stands for it, made of other ops
            self._recorder.ran(self._overload, args, kwargs, out)
        return out

    def __getattr__(self, name: str) -> Any:
        return getattr(self._overload, name)


def tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [t for item in value for t in tensors(item)] if isinstance(value, (list, tuple)) else []


def nbytes(value: Any) -> int:
    return sum(t.numel() * t.element_size() for t in tensors(value))


def must_move(name: str, arguments: dict[str, Any], out: Any) -> int:
    """Bytes of the operands and of the results, once each.

    Of the input of a strided 1×1 convolution only the touched pixels; a library's backward convolution is two
    kernels, and each reads dy.
    """
    distinct = {id(v): v for v in arguments.values() if isinstance(v, (Tensor, list, tuple))}
    moved = nbytes(list(distinct.values())) + nbytes(out)
    if name == "convolution_backward":
        moved += nbytes(arguments["grad_output"])
    source = next((arguments[key] for key in SOURCES if key in arguments), None)
    weight = arguments.get("w_shape") or _shape(arguments.get("w", arguments.get("weight")))
    stride = arguments.get("stride")
    if isinstance(source, Tensor) and weight and stride and list(weight[2:]) == [1, 1]:
        moved -= nbytes(source) - nbytes(source) // (int(stride[0]) * int(stride[1]))
        if name == "convolution_backward":  # both kernels read the weight's side once; dx is written whole
            return moved
    return moved


def _shape(value: Any) -> Sequence[int] | None:
    return list(value.shape) if isinstance(value, Tensor) and value.dim() == 4 else None


def record(namespace: str, run: Callable[[], object]) -> list[dict[str, Any]]:
    """The calls that ``run`` makes, in order."""
    with Recorder(namespace) as recorder, torch.autograd.set_multithreading_enabled(False):
        run()
    return recorder.calls
