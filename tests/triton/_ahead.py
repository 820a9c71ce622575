"""Kernels as the host code launches them, compiled for any device without having one.

``recorded`` runs a back-end function with launching replaced by taking notes; on meta tensors that costs
neither memory nor time, at any size. ``compiled`` compiles what was noted, ahead of time.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.tools.tensor_descriptor import TensorDescriptor

from fusedres.backends.triton import _device, _library

DTYPES = {
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.float32: "fp32",
    torch.float64: "fp64",
    torch.uint8: "u8",
    torch.int64: "i64",
}

#: Shared memory a program may have, in bytes, and processors of a typical device, by compute capability.
DEVICES = {
    80: _device.DeviceFacts(108, 163 * 1024, capability=8),
    90: _device.DeviceFacts(132, 227 * 1024, copies_boxes=True, capability=9),
    100: _device.DeviceFacts(148, 227 * 1024, copies_boxes=True, capability=10),
    120: _device.DeviceFacts(188, 99 * 1024, capability=12),
}

HIP = GPUTarget("hip", "gfx942", 64)
HIP_FACTS = _device.DeviceFacts(304, 64 * 1024)


class Launch(NamedTuple):
    """One launch: its grid, the kernel's arguments by name, its constants and launch options."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: dict[str, Any]
    constants: dict[str, Any]
    options: dict[str, int]

    @property
    def name(self) -> str:
        return str(self.kernel.fn.__name__)

    def signature(self) -> tuple[dict[str, str], dict[tuple[int], Any], dict[tuple[int], Any]]:
        """What Triton would specialise on: types, constants, and divisibility by 16."""
        types: dict[str, str] = {}
        constants: dict[tuple[int], Any] = {}
        attributes: dict[tuple[int], Any] = {}
        for i, parameter in enumerate(self.kernel.params):
            value = {**self.arguments, **self.constants}[parameter.name]
            one = isinstance(value, int) and value == 1 and not parameter.do_not_specialize
            if parameter.is_constexpr or value is None or one:
                types[parameter.name], constants[(i,)] = "constexpr", value
                continue
            if isinstance(value, TensorDescriptor):
                block = ",".join(map(str, value.block_shape))
                types[parameter.name] = f"tensordesc<{DTYPES[value.base.dtype]}[{block}]>"
                continue
            if isinstance(value, Tensor):
                types[parameter.name] = "*" + DTYPES[value.dtype]
                divisible = value.is_meta or value.data_ptr() % 16 == 0
            elif isinstance(value, float):
                types[parameter.name], divisible = "fp32", False
            else:
                types[parameter.name] = "i32" if abs(value) < 2**31 else "i64"
                divisible = value % 16 == 0 and not parameter.do_not_specialize
            if divisible:
                attributes[(i,)] = [["tt.divisibility", 16]]
        return types, constants, attributes


class _Recorder:
    def __init__(self, run: Callable[[Launch], None]) -> None:
        self.run = run

    def __call__(self, kernel: Any) -> Any:
        recorder = self

        class Launcher:
            def __getitem__(self, grid: Any) -> Callable[..., None]:
                def call(*args: Any, **meta: Any) -> None:
                    options = {k: meta.pop(k) for k in ("num_warps", "num_stages") if k in meta}
                    names = [p.name for p in kernel.params]
                    arguments = dict(zip(names, args, strict=False))
                    sized = grid(meta) if callable(grid) else grid
                    recorder.run(Launch(kernel, tuple(sized), arguments, meta, options))

                return call

        return Launcher()


def intercept(
    monkeypatch: pytest.MonkeyPatch, facts: _device.DeviceFacts, run: Callable[[Launch], None]
) -> None:
    """Hand every launch of the back-end to ``run`` instead, as if on a device with these ``facts``."""
    monkeypatch.setattr(_library, "wrap_triton", _Recorder(run))
    monkeypatch.setattr(_device, "DEFAULT_FACTS", facts)


def compiled(launch: Launch, target: GPUTarget) -> Any:
    """The compiled kernel: ``asm`` has its text, ``metadata`` its shared memory and warps."""
    types, constants, attributes = launch.signature()
    source = ASTSource(launch.kernel, signature=types, constexprs=constants, attrs=attributes)
    return triton.compile(source, target=target, options=dict(launch.options))


class Resources(NamedTuple):
    """Registers a thread, stack bytes, instructions of the main loop, and those of them on local memory."""

    registers: int
    stack: int
    loop: int
    spills: list[str]


def registers_and_stack(kernel: Any, folder: Path) -> tuple[int, int]:
    """A thread's, of the compiled cubin, which is left in ``folder``; both as in :class:`Resources`."""
    cubin = folder / "kernel.cubin"
    cubin.write_bytes(kernel.asm["cubin"])
    found = re.search(
        r"REG:(\d+) STACK:(\d+)", _output(triton.knobs.nvidia.cuobjdump, "--dump-resource-usage", str(cubin))
    )
    assert found is not None
    return int(found[1]), int(found[2])


def resources(kernel: Any, folder: Path) -> Resources:
    """What the compiled cubin uses; disassembling it takes a second and more."""
    usage = registers_and_stack(kernel, folder)
    loop = _main_loop(_output(triton.knobs.nvidia.nvdisasm, "-c", str(folder / "kernel.cubin")))
    spills = [text for text in loop if re.search(r"\b(?:LDL|STL)\b", text)]
    return Resources(*usage, len(loop), spills)


def _output(tool: Any, *arguments: str) -> str:
    return subprocess.run([tool.path, *arguments], capture_output=True, text=True, check=True).stdout


def _main_loop(listing: str) -> list[str]:
    """Instructions of a disassembly's shortest loop that multiplies matrices; all, where none is found."""
    instructions: list[str] = []
    labels: dict[str, int] = {}
    for line in listing.splitlines():
        if label := re.match(r"\s*(\.L_\w+):", line):
            labels[label[1]] = len(instructions)
        elif text := re.search(r"/\*[0-9a-f]{4,}\*/\s+(.*?)\s*;", line):
            instructions.append(text[1])
    loops = []
    for at, text in enumerate(instructions):
        target = re.search(r"\bBRA\b.*?`\((\.L_\w+)\)", text)
        if target and target[1] in labels:
            loops.append(instructions[labels[target[1]] : at + 1])
    multiplying = [loop for loop in loops if any(re.search(r"MMA|FFMA", text) for text in loop)]
    return min(multiplying, key=len, default=instructions)
