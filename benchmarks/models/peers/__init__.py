"""The peers. Adding one adds a line here, and a module whose function turns a job into a program."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

from benchmarks.models.job import Job, Program


@dataclass(frozen=True)
class Peer:
    """Who is measured. ``packages`` are distributions; ``entry`` is ``module:function`` of this package."""

    name: str
    label: str
    entry: str
    tasks: tuple[str, ...]
    packages: tuple[str, ...] = ("torch", "torchvision")
    #: Ours, by default or with a choice of the user's: never the one that ours is compared with.
    own: bool = False

    def missing(self) -> str | None:
        """Which package is not installed, where one is not."""
        absent = [name for name in self.packages if version_of(name) is None]
        return f"{', '.join(absent)} not installed" if absent else None

    def prepare(self) -> Callable[[Job], Program]:
        module, function = self.entry.split(":")
        entry: Callable[[Job], Program] = getattr(import_module(f"{__name__}.{module}"), function)
        return entry


OURS = "fusedres"
#: Plain PyTorch as the 2× rule means it.
PLAIN = "eager"
EXACT = "exact"

PEERS = {
    peer.name: peer
    for peer in (
        Peer(OURS, "fusedres", "fused:drop_in", ("infer", "train", "saved"), own=True),
        Peer("recompute", "fusedres, recompute", "fused:recompute", ("saved",), own=True),
        Peer("offload", "fusedres, offloaded", "fused:offloaded", ("infer",), own=True),
        Peer(PLAIN, "eager, channels_last", "eager:channels_last", ("infer", "train", "saved")),
        Peer("contiguous", "eager, contiguous", "eager:contiguous", ("infer", "train")),
        Peer("compile", "torch.compile", "inductor:compiled", ("infer", "train")),
        Peer("freezing", "Inductor, freezing", "inductor:frozen", ("infer",)),
        Peer("ort", "ONNX Runtime", "onnx_runtime:session", ("infer",), ("onnx", "onnxruntime")),
        Peer("openvino", "OpenVINO", "openvino_runtime:request", ("infer",), ("onnx", "openvino")),
    )
}

#: Float64 on the same rounded inputs: what the 2× rule measures errors against. Never timed.
REFERENCE = Peer(EXACT, "float64", "eager:exact", ("infer", "train"))


def version_of(package: str) -> str | None:
    """The installed version of a distribution, or ``None``."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def choose(names: list[str]) -> list[Peer]:
    """The peers a command line names, ours always first; all of them where it names none.

    Raises:
        ValueError: an unknown name.
    """
    for name in names:
        if name not in PEERS:
            raise ValueError(f"--peers: must be among {', '.join(PEERS)}; got {name!r}")
    return [peer for peer in PEERS.values() if not names or peer.name in (OURS, PLAIN, *names)]
