"""What the emulator counts of ResNet-50's convolutions, held to what they must do, and to the time model.

The counting and the budgets are `make kernels`' (benchmarks/kernels); docs/budgets.md names every exception.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.cuda.conftest import Emulator

pytestmark = pytest.mark.emulated


def verify(found: Sequence[object]) -> None:
    from benchmarks.kernels.exceptions import unexplained

    missed = unexplained(found)  # type: ignore[arg-type]
    assert not missed, "\n".join(f"{f.case}: {f.budget} {f.value:.4g}, budget {f.limit:g}" for f in missed)


def test_usual_convolutions(emulator: Emulator) -> None:
    """A bottleneck's 1×1 and 3×3: forward in both tasks, and the gradient."""
    from benchmarks.kernels.budgets import findings
    from benchmarks.kernels.facts import Library
    from benchmarks.kernels.measure import counted

    cases = counted(Library(), "layer2.1.*", ("infer", "stats, input activated", "dgrad, dy formed"))
    assert {"conv_patch" in case.kernel for case in cases} == {True, False} and len(cases) == 5
    verify(findings(cases))


def test_stride_2(emulator: Emulator) -> None:
    """A 3×3 at stride 2 comes from patches, and so keeps an A100's L2 less busy than its tensor cores."""
    from benchmarks.kernels.budgets import IMAGES, findings
    from benchmarks.kernels.chips import chip_of
    from benchmarks.kernels.facts import Library
    from benchmarks.kernels.measure import counted

    (case,) = counted(Library(), "layer2.0.conv2", ("infer",))
    assert "conv_patch" in case.kernel
    busy = case.times(chip_of("A100"), IMAGES)
    assert busy.l2 < busy.tensor_cores  # an implicit GEMM in tiles of 128 × 64: 1.6 times as long
    verify(findings([case]))


@pytest.mark.slow
def test_every_convolution(emulator: Emulator) -> None:
    from benchmarks.kernels.facts import Library
    from benchmarks.kernels.measure import convolutions, findings_of

    measured = convolutions(Library(), "*")
    assert len({case.layer for case, _ in measured}) == 23, "the distinct convolutions of ResNet-50"
    verify(findings_of(measured))


@pytest.mark.slow
def test_whole_networks(emulator: Emulator) -> None:
    """Bytes and launches of inference and of a training step in each composition."""
    from benchmarks.kernels.facts import Library
    from benchmarks.kernels.measure import findings_of_networks, networks

    verify(findings_of_networks(networks(Library())))
