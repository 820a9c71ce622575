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
SASS = "SASS / HMMA, forward"
GB = "GB at batch 256"
L2, SHARED = "L2, *", "shared memory, *"
#: A strided gradient has the 128 × 64 tile of any taps.
STRIDED = (
    "a strided gradient in a tile of 128 × 64 does 43 operations a byte of L2 at most, 26 where dy is formed"
)

#: The first that covers a finding gives its reason. For the tensor cores to be the limit, a byte of L2 has to
#: serve 69 operations on an A100 and 102 on an H100 (:mod:`.chips`).
KNOWN: tuple[Miss, ...] = (
    Miss("sectors used, *", "conv1 *", STEM),
    Miss(L2, "conv1 *", STEM),
    Miss(SHARED, "conv1 *", STEM),
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
    Miss(L2, "layer[234].0.conv2 dgrad*", STRIDED),
    Miss(L2, "layer?.0.downsample.0 dgrad*", STRIDED),
    Miss(
        L2,
        "*.conv2 *",
        "a patch is fetched once, its weights for every 128 pixels: 50 to 82 operations a byte of L2",
    ),
    Miss(
        L2,
        "* wgrad*",
        "a tile of 128 × 128 does 64 operations a byte of L2, 43 where dy is formed of two tensors",
    ),
    Miss(
        L2,
        "* dgrad, dy formed",
        "1 × 1: two tensors are fetched for one operand, 43 operations a byte of L2 in a tile of 128 × 128",
    ),
    Miss(
        L2,
        "*",
        "1 × 1: 64 operations a byte of L2 in a tile of 128 × 128, fewer with what the epilogue moves",
    ),
    Miss(
        SHARED,
        "*.conv[23] wgrad*",
        "what is formed on load is read from shared memory with its channels' vectors, stored and read again",
    ),
    Miss(
        SHARED,
        "*.conv2 stats*",
        "fragments of a warp of 64 × 32 take 75% of the time of its products (an H100: 93%), copies 16% and"
        " more, and statistics look at the results twice",
    ),
    Miss(
        SHARED,
        "*.conv2 *",
        "fragments of a warp of 64 × 32 take 75% of the time of its products (an H100: 93%), copies 16% and"
        " more",
    ),
    Miss(
        SHARED,
        "* stats*",
        "1 × 1: fragments take 75% of the time of the products, and statistics look at the results, staged in"
        " fp32, twice",
    ),
    Miss(
        GB,
        "inference, whole bottlenecks*",
        "stage 2's block of stride 2 runs a launch a convolution; torch's pool and classifier count, 0.06 GB",
    ),
    Miss(
        GB,
        "training, pointwise",
        "the library's weight gradients take activated inputs, which are written for them once more, and its"
        " gradient is added to the skip's in a pass of its own",
    ),
    Miss(
        GB,
        "training, mainloop",
        "the parts of split weight gradients, 1.3 GB written and read: launch by launch they count, though L2"
        " may keep them",
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
