"""What can run a block: torchvision's own forward, and every composition on every back-end that serves it."""

from __future__ import annotations

import torch

from fusedres.ops._dispatch import serving_backends
from fusedres.ops._planned import Choice
from fusedres.plan._block import Block

PLAIN = "plain"

COMPOSITIONS = ("pointwise", "stats", "mainloop")

_TRAINED = (
    "bn_finalize",
    "bn_update_running",
    "affine_add_act",
    "bn_act_bwd_reduce",
    "bn_bwd_finalize",
)

#: The ops of each composition in training: what may move to another back-end alone.
OPS = {
    "pointwise": ("bn_stats", *_TRAINED, "bn_act_bwd_apply"),
    "stats": ("conv_stats", "conv_dgrad", "conv_wgrad", *_TRAINED, "bn_act_bwd_apply"),
    "mainloop": ("conv_stats", "conv_dgrad", "conv_wgrad", *_TRAINED),
}
_POOL = ("affine_act_maxpool", "affine_act_maxpool_bwd")


def label(choice: Choice) -> str:
    """``stats on cpu``; ``fused on cpu`` where compositions do not differ."""
    if choice.composition == PLAIN:
        return PLAIN
    name = "fused" if choice.composition == "auto" else choice.composition
    return f"{name} on {choice.backend}"


def candidates(block: Block, device: torch.device) -> list[Choice]:
    """The plain path first, then every composition on every back-end; of frozen blocks there is one each."""
    backends = serving_backends(device, block.compute_dtype) if block.backend == "auto" else [block.backend]
    compositions = COMPOSITIONS if block.mode == "train" or block.kind == "stem" else ("auto",)
    if block.mode == "infer":
        compositions = ("auto",)
    return [
        Choice(PLAIN, "auto"),
        *(Choice(composition, backend) for backend in backends for composition in compositions),
    ]


def substitutions(block: Block, choice: Choice, device: torch.device) -> list[list[Choice]]:
    """For each op of a training composition, ``choice`` with that op on each of the other back-ends."""
    if block.backend != "auto" or choice.composition not in OPS:
        return []
    first = choice.backend.split(",")[0]
    others = [name for name in serving_backends(device, block.compute_dtype) if name != first]
    ops = (*OPS[choice.composition], *(_POOL if block.kind == "stem" else ()))
    return [[Choice(choice.composition, f"{first},{op}={other}") for other in others] for op in ops if others]


def joined(choice: Choice, changes: list[Choice]) -> Choice:
    """``choice`` with every single change of ``changes``."""
    moved = [change.backend.partition(",")[2] for change in changes]
    return Choice(choice.composition, ",".join([choice.backend, *moved]))
