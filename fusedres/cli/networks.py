"""What is compared: torchvision's network, ours, and the float64 reference, all with the same weights."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.models import get_model

import fusedres
from fusedres.cli.weights import Weights

#: Names of the contenders, in reports and in the JSON. The last one is ours.
PLAIN, PLAIN_NHWC, OURS = "torchvision", "torchvision channels_last", "fusedres"

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Contender:
    """A model, and the batch in the memory format that it is given."""

    model: nn.Module
    images: Tensor


def build_plain(name: str, weights: Weights) -> nn.Module:
    """torchvision's model with ``weights``, on the CPU in float32."""
    model: nn.Module = get_model(name, weights=None, num_classes=weights.num_classes)
    model.load_state_dict(weights.state_dict)
    return model


def build_ours(name: str, weights: Weights) -> nn.Module:
    """Our model with ``weights``, on the CPU in float32."""
    model: nn.Module = getattr(fusedres, name)(weights=None, num_classes=weights.num_classes)
    model.load_state_dict(weights.state_dict)
    return model


def contenders(
    plain: nn.Module, ours: nn.Module, images: Tensor, device: torch.device, dtype: torch.dtype
) -> dict[str, Contender]:
    """Fresh copies of both models on ``device`` in ``dtype``: torchvision's in both memory formats, and ours.

    Args:
        plain: torchvision's model.
        ours: our model.
        images: (N, 3, H, W) float32.
        device: where they are to run.
        dtype: of parameters and images.
    """
    formats = {
        PLAIN: (plain, torch.contiguous_format),
        PLAIN_NHWC: (plain, torch.channels_last),
        OURS: (ours, torch.channels_last),
    }
    return {
        name: Contender(
            copy.deepcopy(model).to(device, dtype).to(memory_format=layout),
            images.to(device, dtype, memory_format=layout),
        )
        for name, (model, layout) in formats.items()
    }


def reference(
    plain: nn.Module, images: Tensor, device: torch.device, dtype: torch.dtype, *, keep_norms: bool
) -> Contender:
    """torchvision's model in float64 on inputs and weights rounded to ``dtype``, as the contenders see them.

    ``keep_norms`` leaves BN's parameters as they are: autocast does not round those.
    """
    model = copy.deepcopy(plain)
    for module in model.modules():
        if keep_norms and isinstance(module, nn.modules.batchnorm._BatchNorm):
            continue
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            if tensor.is_floating_point():
                tensor.data = tensor.data.to(dtype).to(tensor.dtype)
    return Contender(model.to(device, torch.float64), images.to(dtype).to(device, torch.float64))
