"""One call of each op around a convolution on the stand-in device, at a size where the rest is small.

Prints a line of JSON an op: its launches, and the bytes that it must read and write once. Run under
``python -m ptxemu run --counters FILE``; test_budgets.py compares.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import ptxemu.torch_mock
import torch
from torch import Tensor

from fusedres import ops

#: Activations of ResNet-50 after stage 1's convolutions, and its stem's: of as many images as make the
#: blocks' partial sums (0.9 MB on 108 processors, written and read) small beside them.
JOIN, STEM = (64, 256, 28, 28), (16, 64, 112, 112)


def activation(*shape: int) -> Tensor:
    return torch.randn(shape).bfloat16().to("cuda", memory_format=torch.channels_last)


def nbytes(tensors: object) -> int:
    found = [t for t in tensors if isinstance(t, Tensor)] if isinstance(tensors, tuple) else [tensors]
    return sum(t.numel() * t.element_size() for t in found if isinstance(t, Tensor))


def run(op: str, launches: int, function: Callable[..., object], *inputs: Tensor | None) -> None:
    out = function(*inputs, backend="cuda")
    sizes = {"read": nbytes(inputs), "written": nbytes(out)}
    print(json.dumps({"op": op, "launches": launches, **sizes}), flush=True)


def main() -> None:
    ptxemu.torch_mock.install()
    torch.manual_seed(0)
    a, b, c = (activation(*JOIN) for _ in range(3))
    channels = JOIN[1]
    v = [torch.rand(channels, device="cuda") for _ in range(6)]
    run("bn_stats", 1, ops.bn_stats, a)
    tiles = [torch.rand(1568, channels, device="cuda") for _ in range(2)]
    run("bn_finalize", 1, ops.bn_finalize, torch.full((1568,), 128.0, device="cuda"), *tiles, v[0], v[1])
    run("affine_add_act", 1, ops.affine_add_act, a, v[0], v[1], b, v[2], v[3])
    run("bn_act_bwd_reduce", 1, ops.bn_act_bwd_reduce, a, b, c, None, None, v[0], v[1])
    run("bn_act_bwd_apply", 1, ops.bn_act_bwd_apply, a, b, *v[:3])
    run("bn_act_bwd_apply_two", 1, ops.bn_act_bwd_apply, a, b, *v[:3], c, *v[3:])
    y = activation(*STEM)
    s, t, mean, invstd = (torch.rand(STEM[1], device="cuda") for _ in range(4))
    run("affine_act_maxpool", 1, ops.affine_act_maxpool, y, s, t)
    out, index = ops.affine_act_maxpool(y, s, t, backend="reference")
    run("affine_act_maxpool_bwd", 1, ops.affine_act_maxpool_bwd, out, index, y, s, t, mean, invstd)


if __name__ == "__main__":
    main()
