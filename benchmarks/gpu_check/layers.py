"""Every distinct convolution of ResNet-50 with its BatchNorm and ReLU, against cuDNN's fused graphs.

A graph is convolution, scale, shift and ReLU in one cuDNN plan, chosen by its heuristics
(https://docs.nvidia.com/deeplearning/cudnn/frontend/latest/operations/Convolutions.html).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu_check.contest import OURS, Absent, Maker, Outcome, held
from benchmarks.shapes import Layer
from fusedres import ops
from fusedres.cli.parity import Parity, two_times_rule
from tests import baselines

CUDNN = "cuDNN graph"


def contest(layer: Layer, batch: int, rounds: int, device: torch.device) -> Outcome:
    """bf16, channels_last."""
    torch.manual_seed(0)
    x = torch.randn(layer.in_shape(batch), device=device).bfloat16()
    x = x.contiguous(memory_format=torch.channels_last)
    w = torch.randn(layer.w_shape, device=device) * (2 / (layer.channels * layer.kernel**2)) ** 0.5
    w = w.bfloat16().contiguous(memory_format=torch.channels_last)
    scale = 1 + 0.1 * torch.randn(layer.filters, device=device)
    shift = 0.1 * torch.randn(layer.filters, device=device)

    def ours() -> Tensor:
        return ops.conv_affine_act(x, w, scale, shift, relu=True, **layer.geometry)

    def plain() -> Tensor:
        return baselines.conv_affine_act(x, w, scale, shift, relu=True, **layer.geometry)

    def parity() -> tuple[Parity, ...]:
        wide = (t.double() for t in (x, w, scale, shift))
        exact = baselines.conv_affine_act(*wide, relu=True, **layer.geometry)
        return (two_times_rule("output", ours(), plain(), exact),)

    makers: dict[str, Maker] = {
        OURS: lambda: ours,
        "eager, channels_last": lambda: plain,
        CUDNN: lambda: fused_graph(x, w, scale, shift, layer),
    }
    with torch.no_grad():
        return held(f"{layer}, batch {batch}, bf16", parity, makers, rounds, device)


def fused_graph(x: Tensor, w: Tensor, scale: Tensor, shift: Tensor, layer: Layer) -> Callable[[], object]:
    """The layer as one cuDNN graph on torch's current stream.

    Raises:
        Absent: nvidia-cudnn-frontend is not installed.
    """
    try:
        import cudnn
    except ImportError as error:
        raise Absent(f"nvidia-cudnn-frontend ({error})") from None
    handle = cudnn.create_handle()
    cudnn.set_stream(handle=handle, stream=torch.cuda.current_stream().cuda_stream)
    graph = cudnn.pygraph(
        io_data_type=cudnn.data_type.BFLOAT16,
        intermediate_data_type=cudnn.data_type.FLOAT,
        compute_data_type=cudnn.data_type.FLOAT,
        handle=handle,
    )
    vectors = [v.reshape(1, -1, 1, 1) for v in (scale, shift)]
    image, weight, by, plus = (graph.tensor_like(t) for t in (x, w, *vectors))
    convolved = graph.conv_fprop(
        image=image, weight=weight, padding=[layer.padding] * 2, stride=[layer.stride] * 2, dilation=[1, 1]
    )
    out: Any = graph.relu(input=graph.add(a=graph.mul(a=convolved, b=by), b=plus))
    out.set_output(True)
    graph.build([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
    y = torch.empty(layer.out_shape(x.shape[0]), device=x.device, dtype=x.dtype)
    y = y.contiguous(memory_format=torch.channels_last)
    workspace = torch.empty(graph.get_workspace_size(), device=x.device, dtype=torch.uint8)
    operands = {image: x, weight: w, by: vectors[0], plus: vectors[1], out: y}
    return lambda: graph.execute(operands, workspace, handle=handle)
