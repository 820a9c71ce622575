"""conv_wgrad on the stand-in device for each kind of convolution in ResNet-50, on small maps.

Prints a line of JSON a call: the bytes of its operands and result, and the sizes that its matrix instructions
follow from. Run under ``python -m ptxemu run --counters FILE``; test_wgrad_budgets.py compares.
"""

from __future__ import annotations

import json
from typing import NamedTuple

import ptxemu.torch_mock
import torch
from torch import Tensor

from fusedres import ops
from fusedres.ops._shapes import Geometry, conv_output_shape


class Layer(NamedTuple):
    """A convolution, and which of its operands are formed as they are loaded."""

    name: str
    channels: int
    outputs: int
    taps: int
    stride: int
    size: int
    batch: int
    formed: str


LAYERS = (
    Layer("layer1.1.conv1", 256, 64, 1, 1, 14, 4, "gradient"),
    Layer("layer1.1.conv2", 64, 64, 3, 1, 14, 2, "both"),
    Layer("layer1.1.conv3", 64, 256, 1, 1, 14, 4, "both"),
    Layer("layer2.0.conv2", 128, 128, 3, 2, 14, 2, "both"),
    Layer("layer2.0.downsample", 256, 512, 1, 2, 14, 2, "gradient"),
    Layer("layer2.1.conv1", 512, 128, 1, 1, 7, 4, "none"),
    Layer("layer2.1.conv3", 128, 512, 1, 1, 7, 4, "both"),
)


def activation(*shape: int) -> Tensor:
    return torch.randn(shape).bfloat16().to("cuda", memory_format=torch.channels_last)


def run(layer: Layer) -> None:
    x = activation(layer.batch, layer.channels, layer.size, layer.size)
    w_shape = (layer.outputs, layer.channels, layer.taps, layer.taps)
    geometry = Geometry((layer.stride,) * 2, (layer.taps // 2,) * 2)
    out_shape = conv_output_shape(x.shape, w_shape, geometry)
    dz = activation(*out_shape)
    arguments: dict[str, Tensor] = {}
    if layer.formed == "both":
        arguments |= {name: torch.rand(layer.channels, device="cuda") for name in ("in_s", "in_t")}
    if layer.formed != "none":
        arguments |= {name: torch.rand(layer.outputs, device="cuda") for name in ("p", "q", "r")}
        arguments["y"] = activation(*out_shape)
    dw = ops.conv_wgrad(
        x, dz, w_shape=w_shape, stride=layer.stride, padding=layer.taps // 2, backend="cuda", **arguments
    )
    read = x.numel()
    if layer.taps == 1 and layer.stride > 1:  # only the pixels that a 1×1 reads
        read = layer.batch * layer.channels * out_shape[2] * out_shape[3]
    operands = read + sum(t.numel() for t in (dz, arguments.get("y")) if t is not None)
    sizes = {
        "operand_bytes": 2 * operands,
        "values": dw.numel(),
        "pixels": out_shape[0] * out_shape[2] * out_shape[3],
    }
    print(json.dumps({"layer": layer.name, **sizes}), flush=True)


def main() -> None:
    ptxemu.torch_mock.install()
    torch.manual_seed(0)
    for layer in LAYERS:
        run(layer)


if __name__ == "__main__":
    main()
