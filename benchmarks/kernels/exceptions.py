"""Where a budget is known to be missed, and why. `make kernels` writes them into docs/budgets.md."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import NamedTuple

from benchmarks.kernels.budgets import Finding


class Miss(NamedTuple):
    """Globs of budgets and of cases, as :class:`Finding` names them."""

    budget: str
    case: str
    reason: str

    def covers(self, finding: Finding) -> bool:
        return fnmatchcase(finding.budget, self.budget) and fnmatchcase(finding.case, self.case)


STEM = "the stem's three channels are gathered value by value, and fill no 16-byte access"
STRIDED = "a strided gradient runs the 128 × 64 tile of any taps"
OTHER = "other resources, *"
SASS = "SASS / HMMA, forward"

#: The first that covers a finding gives its reason.
KNOWN: tuple[Miss, ...] = (
    Miss("sectors used, *", "conv1 *", STEM),
    Miss(OTHER, "conv1 *", STEM),
    Miss(SASS, "conv1 *", STEM),
    Miss(
        SASS,
        "*, input activated",
        "what is loaded is unpacked, activated and packed again between two copies",
    ),
    Miss(
        SASS,
        "layer[234].0.conv2 *",
        "at stride 2 a tap brings three slots of the next phase's patch a thread (kernels.md)",
    ),
    Miss(SASS, "*.conv2 *", "a patch's pixels have slots and rotations of their own (kernels.md, version 6)"),
    Miss(
        SASS,
        "layer1.?.conv1 *",
        "64 filters: a tile of 128 × 64 has half the products to hide its copies behind",
    ),
    Miss(OTHER, "layer[234].0.conv2 dgrad*", STRIDED),
    Miss(OTHER, "layer?.0.downsample.0 dgrad*", STRIDED),
    Miss(
        OTHER,
        "*.conv[23] wgrad*",
        "what is formed on load is read from shared memory, stored there and read again",
    ),
    Miss(
        OTHER,
        "* wgrad*",
        "a tile of 128 × 128 does 64 operations a byte of L2, 43 where dy is formed of two tensors",
    ),
    Miss(
        OTHER,
        "*.conv2 stats*",
        "warps of 64 × 32 read shared memory as long as they multiply, and statistics look at it twice more",
    ),
    Miss(OTHER, "*.conv2 *", "warps of 64 × 32: reading fragments and copying take as long as multiplying"),
    Miss(
        OTHER,
        "* stats*",
        "statistics look at the staged tile twice; where the reduction is long, 64 operations a byte of L2",
    ),
    Miss(
        OTHER,
        "* dgrad, dy formed",
        "two tensors are fetched for one operand: 43 operations a byte of L2 in a tile of 128 × 128",
    ),
    Miss(
        OTHER,
        "* [id]*",
        "1×1 with a long reduction: 64 operations a byte of L2 in a tile of 128 × 128 (A100: 288 TFLOP/s)",
    ),
    Miss(
        "GB at batch 256",
        "inference, whole bottlenecks*",
        "stage 2's block of stride 2 runs a launch a convolution; torch's pool and classifier count, 0.06 GB",
    ),
    Miss(
        "GB at batch 256",
        "training, pointwise",
        "the library's weight gradients take activated inputs, which are written for them once more, and its"
        " gradient is added to the skip's in a pass of its own",
    ),
    Miss(
        "GB at batch 256",
        "training, mainloop",
        "the parts of split weight gradients, 1.3 GB written and read: launch by launch they count, though L2"
        " may keep them",
    ),
    Miss(
        "launches",
        "training, mainloop",
        "merging of parts (102), packing of weights (53), running statistics (53) are launches of their own",
    ),
)


def reason_for(finding: Finding) -> str | None:
    """Why a budget is missed, where that is known."""
    return next((miss.reason for miss in KNOWN if miss.covers(finding)), None)


def unexplained(findings: Iterable[Finding]) -> list[Finding]:
    """Missed, and no reason is given."""
    return [f for f in findings if not f.met and reason_for(f) is None]


def stale(findings: Iterable[Finding]) -> list[Miss]:
    """Reasons for which nothing misses its budget any more."""
    missed = [f for f in findings if not f.met]
    return [miss for miss in KNOWN if not any(miss.covers(f) for f in missed)]
