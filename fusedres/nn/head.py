"""A ResNet's last two modules, avgpool and fc, run as one op in inference."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fusedres.nn import _recall
from fusedres.nn._module import FusedModule
from fusedres.nn._parts import runs_fused, unobserved
from fusedres.ops._planned import Choice
from fusedres.ops._prepared import infer_head


def run_head(owner: FusedModule, avgpool: nn.Module, fc: nn.Module, x: Tensor) -> Tensor:
    """``fc(flatten(avgpool(x)))`` of ``owner``, as one op where a back-end has it.

    x (N, C, H, W) → (N, num_classes).
    """
    if is_head(avgpool, fc) and runs_fused(x, owner._composition):
        parts = [avgpool, fc]
        if (known := _recall.recall(owner, x, Choice(), parts)) is not None:
            return known
        weight, bias = fc._parameters["weight"], fc._parameters["bias"]
        assert weight is not None  # it is a head
        out = _recall.noting(owner, x, Choice(), lambda: infer_head(x, weight, bias), parts)
        if out is not None:
            return out
    logits: Tensor = fc(torch.flatten(avgpool(x), 1))
    return logits


def is_head(avgpool: object, fc: object) -> bool:
    """Whether the two are a mean over all pixels and a linear layer, and nobody sees them called.

    A parameter of a class of its own, such as a quantised one, does its own arithmetic.
    """
    return (
        type(avgpool) is nn.AdaptiveAvgPool2d
        and type(fc) is nn.Linear
        and avgpool.output_size in (1, (1, 1))
        and type(fc._parameters.get("weight")) is nn.Parameter
        and type(fc._parameters.get("bias", fc)) in (nn.Parameter, type(None))
        and unobserved(avgpool)
        and unobserved(fc)
    )
