"""A ResNet's last two modules, avgpool and fc, run as one op in inference."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fusedres.nn import _recall
from fusedres.nn._module import FusedModule
from fusedres.nn._parts import runs_fused
from fusedres.ops._planned import Choice
from fusedres.ops._prepared import infer_head, nothing_watches, only_prepared

HEAD = ("avgpool", "fc")

for _class in (nn.AdaptiveAvgPool2d, nn.Linear):
    _recall.plain(_class)


def run_head(owner: FusedModule, avgpool: nn.Module, fc: nn.Module, x: Tensor) -> Tensor:
    """``fc(flatten(avgpool(x)))`` of ``owner``, as one op where a back-end has it.

    x (N, C, H, W) → (N, num_classes).
    """
    if nothing_watches(x) and runs_fused(x, owner._composition) and _is_head(avgpool, fc):
        parts = [avgpool, fc]
        if (known := _recall.recall(owner, x, Choice(), parts)) is not None:
            return known
        weight, bias = fc._parameters["weight"], fc._parameters["bias"]
        assert weight is not None  # it is a head
        out = _recall.noting(owner, x, Choice(), lambda: infer_head(x, weight, bias), parts)
        if out is not None:
            return out
    only_prepared()
    logits: Tensor = fc(torch.flatten(avgpool(x), 1))
    return logits


def _is_head(avgpool: object, fc: object) -> bool:
    """Whether the two are a mean over all pixels and a linear layer, and nobody sees them called.

    A parameter of a class or layout of its own, such as a quantised or sparse one, does its own arithmetic.
    """
    return (
        type(avgpool) is nn.AdaptiveAvgPool2d
        and type(fc) is nn.Linear
        and avgpool.output_size in (1, (1, 1))
        and _recall.is_plain(avgpool)
        and _recall.is_plain(fc)
        and _is_dense(fc._parameters.get("weight"))
        and "bias" in fc._parameters
        and (fc.bias is None or _is_dense(fc.bias))
    )


def _is_dense(parameter: Tensor | None) -> bool:
    return type(parameter) is nn.Parameter and parameter.layout is torch.strided
