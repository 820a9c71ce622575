"""ResNet-50 whole, at batch 256 in bf16: launches, bytes and modelled times of each way to run it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from benchmarks.kernels.chips import Chip
from benchmarks.kernels.device import A100, H100, run
from benchmarks.kernels.facts import Library
from benchmarks.kernels.scaling import Launch, Scaling
from benchmarks.kernels.time_model import times

IMAGES = 256
#: What an optimiser moves a weight: SGD with momentum on fp32 masters, and the bf16 copy.
OPTIMISER_BYTES = 22
#: The pass over per-channel numbers and weights that touches no activation.
NO_ACTIVATION = (
    "bn_finalize", "bn_bwd_finalize", "bn_update_running", "conv_wgrad_reduce", "pack_weights",
)  # fmt: skip


#: GB of torchvision's own forward and of its training step, one kernel an op (docs/design.md).
PLAIN_GIGABYTES = {"infer": 40.9, "train": 120.8}


class Way(NamedTuple):
    """A way to run the network: what the device program is told, and the budgets in GB and launches.

    ``roofline`` is docs/design.md's, the GB that such kernels must move. ``most_launches`` are all of them,
    ``most_on_activations`` those that touch an activation.
    """

    name: str
    arguments: tuple[str, ...]
    sm: int
    most_gigabytes: float
    roofline: float
    most_launches: int | None
    most_on_activations: int | None = None

    @property
    def key(self) -> str:
        """The name in docs/budgets.md's marks."""
        return re.sub("[^a-z]+", "-", self.name.partition(" (")[0])

    @property
    def trains(self) -> bool:
        return "train" in self.arguments

    @property
    def convolves(self) -> bool:
        """By kernels of ours: in ``pointwise`` convolutions are the library's."""
        return "pointwise" not in self.arguments


WAYS = (
    Way("inference, a launch a convolution", ("infer", "--per-conv"), A100, 14.5, 14.0, 56),
    Way("inference, whole bottlenecks (227 KB)", ("infer",), H100, 9.8, 9.3, 42),
    Way("training, pointwise", ("train", "--composition", "pointwise"), A100, 97.0, 95.0, None),
    Way("training, stats", ("train", "--composition", "stats"), A100, 91.0, 89.3, None),
    Way("training, mainloop", ("train", "--composition", "mainloop"), A100, 72.0, 70.5, 380, 200),
)


class Network(NamedTuple):
    """A way, measured: its launches at batch 256, and what torch's own kernels move beside them."""

    way: Way
    launches: list[Launch]
    aten: dict[str, tuple[int, float]]

    @property
    def library_bytes(self) -> float:
        """Of torch's convolutions, and of what is between them: what they must move."""
        return sum(moved for _, moved in self.aten.values())

    @property
    def gigabytes(self) -> float:
        optimiser = OPTIMISER_BYTES * 25_557_032 if self.way.trains else 0
        return (sum(launch.dram for launch in self.launches) + self.library_bytes + optimiser) / 1e9

    @property
    def on_activations(self) -> int:
        return sum(touches_activation(launch.kernel) for launch in self.launches)

    @property
    def library_convolutions(self) -> int:
        return sum(count for op, (count, _) in self.aten.items() if "convolution" in op)

    def seconds(self, chip: Chip) -> float:
        """Launch by launch the longest that one resource is busy; torch's own by their bytes."""
        return sum(times(x.counters, chip).longest for x in self.launches) + self.library_bytes / chip.dram

    def limits(self, chip: Chip) -> dict[str, float]:
        """Seconds by the resource that limits the launch."""
        found: dict[str, float] = {}
        for launch in self.launches:
            busy = times(launch.counters, chip)
            found[busy.limit] = found.get(busy.limit, 0.0) + busy.longest
        return found


def touches_activation(kernel: str) -> bool:
    return not any(name in kernel for name in NO_ACTIVATION)


def measure(way: Way, library: Library) -> Network:
    """Execute one and two images, list the launches of 256, and scale."""
    one, two = (run("network", *way.arguments, "--batch", str(n), sm=way.sm) for n in (1, 2))
    large = None
    if way.convolves:  # the library's convolutions would not be listed but run
        large = run("network", *way.arguments, "--batch", str(IMAGES), sm=way.sm, list_only=True)
    return scaled(way, one, two, large, library)


def scaled(
    way: Way, one: Sequence[Any], two: Sequence[Any], large: Sequence[Any] | None, library: Library
) -> Network:
    scaling = Scaling(one, two, large, IMAGES, library.issued)
    return Network(way, scaling.launches, scaling.aten)
