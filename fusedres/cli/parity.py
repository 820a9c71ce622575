"""The 2× rule, and agreement of the top classes (docs/numerics.md has the derivations)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fusedres._settings import PRECISION

#: Ours may err by at most this multiple of what plain PyTorch errs by: the largest error, and the rms error.
FACTORS = (2.0, 2.0)
#: The same under ``precision("fast")``, and what may be added in place of a rounding of the dtype: both are
#: derived in docs/numerics.md.
FAST_FACTORS = (5.0, 3.2)
FAST_EPS = 2.0**-12


@dataclass(frozen=True)
class Parity:
    """How far one kind of result is from the float64 reference, and how far it may be.

    ``kinks_max`` and ``kinks_rms`` are what the reference itself moves by where it is not continuous; else 0.
    """

    name: str
    ours_max: float
    torch_max: float
    kinks_max: float
    allowed_max: float
    ours_rms: float
    torch_rms: float
    kinks_rms: float
    allowed_rms: float

    @property
    def passed(self) -> bool:
        # <= is false for NaN, so that a NaN on our side fails
        return self.ours_max <= self.allowed_max and self.ours_rms <= self.allowed_rms


@dataclass(frozen=True)
class Agreement:
    """How many images have the same top classes; ``near_ties`` were set aside, ``wrong`` were not."""

    images: int
    top1: int
    top5: int
    near_ties: int
    wrong: tuple[int, ...]

    @property
    def passed(self) -> bool:
        return not self.wrong


def two_times_rule(name: str, ours: Tensor, plain: Tensor, reference: Tensor) -> Parity:
    """max|ours − ref| ≤ 2·max|torch − ref| + eps·max|ref|, and the same for rms.

    Under ``precision("fast")`` its factors stand for the 2.

    Args:
        name: what the tensors are, for reports.
        ours: our result; its dtype gives eps.
        plain: plain PyTorch's result in the same dtype.
        reference: the float64 result on the same inputs.
    """
    exact = _wide(reference)
    return _judge(name, _wide(ours), _wide(plain), exact, exact, torch.finfo(ours.dtype).eps)


def two_times_rule_of_many(
    name: str,
    ours: Mapping[str, Tensor],
    plain: Mapping[str, Tensor],
    reference: Mapping[str, Tensor],
    moved: Mapping[str, Tensor] | None = None,
) -> Parity:
    """The rule for many tensors as one vector, each divided by its own max|ref| so that none hides another.

    A network has hundreds of small tensors (the gradient of a BN's γ), whose errors are common-mode: of two
    equally exact implementations, one exceeds twice the other's error in a few of them by chance alone.
    Taken together that chance vanishes, and an error in one tensor still stands out at its own scale.

    Args:
        name: what the tensors are, for reports.
        ours: our results by name; the largest eps of their dtypes is the rule's.
        plain: plain PyTorch's, under the same names.
        reference: the float64 results, under the same names.
        moved: the reference on inputs moved by a rounding, for results with kinks (gradients of ReLUs): the
            larger of its distance from ``reference`` and plain PyTorch's error is the yardstick.

    Raises:
        ValueError: the names differ.
    """
    sides = (ours, plain, reference if moved is None else moved, reference)
    odd = sorted(set().union(*(side.keys() ^ reference.keys() for side in sides)))
    if odd:
        raise ValueError(
            f"two_times_rule_of_many: {name}: must have the same names on all sides; differing: {odd}"
        )
    columns: tuple[list[Tensor], ...] = ([], [], [], [])
    for key, tensor in reference.items():
        peak = float(_wide(tensor).abs().amax()) if tensor.numel() else 0.0
        for column, side in zip(columns, sides, strict=True):
            column.append(_wide(side[key]).flatten() / (peak or 1.0))
    eps = max((torch.finfo(tensor.dtype).eps for tensor in ours.values()), default=0.0)
    whole = [torch.cat(column) for column in columns]
    return _judge(name, whole[0], whole[1], whole[3], whole[2], eps)


def top_agreement(ours: Tensor, plain: Tensor, reference: Tensor, allowed: float) -> Agreement:
    """Whether ours and plain PyTorch rank the same classes first, near ties set aside.

    Where two sides put different classes at a rank although both keep their errors, those classes' reference
    logits are at most ``2·(max|torch − ref| + allowed)`` apart; only a wider gap is a disagreement.

    Args:
        ours: (N, classes), any floating dtype.
        plain: as ``ours``.
        reference: as ``ours``, float64.
        allowed: the error that the 2× rule allows a logit.
    """
    ours, plain, reference = _wide(ours), _wide(plain), _wide(reference)
    k = min(5, reference.shape[1])
    ours_top, plain_top = ours.topk(k).indices, plain.topk(k).indices
    tie = 2 * (float((plain - reference).abs().max()) + allowed)
    gap = (reference.gather(1, ours_top) - reference.gather(1, plain_top)).abs()
    same = ours_top == plain_top
    top5 = same.all(dim=1)
    # ~(gap <= tie) rather than gap > tie: a NaN gap counts as wrong
    wrong = (~same & ~(gap <= tie)).any(dim=1) | ours.isnan().any(dim=1)
    return Agreement(
        images=ours.shape[0],
        top1=int(same[:, 0].sum()),
        top5=int(top5.sum()),
        near_ties=int((~top5 & ~wrong).sum()),
        wrong=tuple(wrong.nonzero().flatten().tolist()),
    )


def _judge(name: str, ours: Tensor, plain: Tensor, reference: Tensor, moved: Tensor, eps: float) -> Parity:
    (ours_max, ours_rms), (torch_max, torch_rms), (kinks_max, kinks_rms) = (
        _max_and_rms(side - reference) for side in (ours, plain, moved)
    )
    size_max, size_rms = _max_and_rms(reference)
    fast = PRECISION.get() == "fast"
    factor_max, factor_rms = FAST_FACTORS if fast else FACTORS
    eps = max(eps, FAST_EPS) if fast else eps
    return Parity(
        name=name,
        ours_max=ours_max,
        torch_max=torch_max,
        kinks_max=kinks_max,
        allowed_max=factor_max * max(torch_max, kinks_max) + eps * size_max,
        ours_rms=ours_rms,
        torch_rms=torch_rms,
        kinks_rms=kinks_rms,
        allowed_rms=factor_rms * max(torch_rms, kinks_rms) + eps * size_rms,
    )


def _max_and_rms(x: Tensor) -> tuple[float, float]:
    if x.numel() == 0:
        return 0.0, 0.0
    return float(x.abs().max()), math.sqrt(float(x.square().mean()))


def _wide(x: Tensor) -> Tensor:
    return x.detach().to("cpu", torch.float64)
