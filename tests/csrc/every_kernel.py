"""Every C++ kernel of the CPU back-end on fixed inputs, and a digest of the bits of all it returned.

Run as a program it prints the instruction set in force and the digests, one line a kernel: an instruction
set is chosen once a process.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor

import fusedres  # noqa: F401  (defines the ops)
from fusedres._build import build_info
from fusedres.backends.cpu.engine import OPS
from fusedres.ops._registry import kernel

#: Whole vectors of every ISA and a remainder; more rows than a chunk has; odd sides; images by fours and one.
SHAPES = [(2, 37, 33, 31), (3, 64, 17, 19), (1, 5, 1, 1), (5, 40, 3, 3)]


def activation(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.randn(shape).to(dtype).contiguous(memory_format=torch.channels_last)


def outputs(shape: tuple[int, ...], dtype: torch.dtype) -> Iterator[tuple[str, tuple[Tensor, ...]]]:
    """(name, outputs) of each kernel, in each of its forms."""
    torch.manual_seed(0)
    c = shape[1]
    y, y2, dout = (activation(shape, dtype) for _ in range(3))
    s, t, mean, mean2, q, r = (torch.randn(c) for _ in range(6))
    invstd, invstd2 = torch.rand(c), torch.rand(c)

    def run(name: str, *args: object) -> tuple[Tensor, ...]:
        out = kernel("cpu", name)(*args)
        return out if isinstance(out, tuple) else (out,)

    stats = run("bn_stats", y)
    yield "bn_stats", stats
    yield "bn_finalize", run("bn_finalize", *stats, s, t, 1e-5)
    yield "affine_add_act", run("affine_add_act", y, s, t, None, None, None, False)
    yield "affine_add_act identity", run("affine_add_act", y, s, t, y2, None, None, True)
    yield "affine_add_act affine", run("affine_add_act", y, s, t, y2, q, r, True)
    reduce = "bn_act_bwd_reduce"
    yield reduce, run(reduce, dout, None, y, None, None, mean, invstd, None, None, None)
    yield f"{reduce} affine", run(reduce, dout, None, y, s, t, mean, invstd, None, None, None)
    yield f"{reduce} join", run(reduce, dout, y2, y, None, None, mean, invstd, y2, mean2, invstd2)
    yield f"{reduce} frozen", run(reduce, dout, y2, None, None, None, None, None, None, None, None)
    yield "bn_act_bwd_apply", run("bn_act_bwd_apply", dout, y, s, q, r, None, None, None, None)
    yield "bn_act_bwd_apply join", run("bn_act_bwd_apply", dout, y, s, q, r, y2, t, mean, mean2)
    out, index = run("affine_act_maxpool", y, s, t)
    yield "affine_act_maxpool", (out, index)
    pooled = activation(tuple(out.shape), dtype)
    yield "avgpool_linear", (avgpool_linear(y, torch.randn(11, c).to(dtype), t.to(dtype)[:1].expand(11)),)
    yield "affine_act_maxpool_bwd", run("affine_act_maxpool_bwd", pooled, index, y, s, t, mean, invstd)


def avgpool_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    out: Tensor = OPS.avgpool_linear.default(x, weight, bias)
    return out


def digests() -> dict[str, str]:
    found = {}
    for shape in SHAPES:
        for dtype in (torch.float32, torch.bfloat16):
            for name, results in outputs(shape, dtype):
                bits = hashlib.sha256()
                for result in results:
                    dense = result.permute(0, 2, 3, 1) if result.dim() == 4 else result
                    bits.update(dense.contiguous().view(torch.uint8).numpy().tobytes())
                found[f"{name} {shape} {dtype}"] = bits.hexdigest()
    return found


if __name__ == "__main__":
    print(build_info()["cpu_isa"])
    for name, digest in digests().items():
        print(f"{name}: {digest}")
