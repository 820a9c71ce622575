"""Options and fixtures of ``pytest benchmarks/``: layers, dtypes, and ours against plain PyTorch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import pytest
import torch
from torch import Tensor

from benchmarks import shapes, versus
from fusedres import ops
from tests import baselines

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
OUTCOMES = pytest.StashKey[list[versus.Outcome]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fusedres")
    group.addoption("--layers", help="a glob over layer names such as 'layer1.*'; default: a usual few")
    group.addoption("--batch", type=int, default=4, help="batch size (default: 4)")
    group.addoption("--dtypes", default="fp32,bf16", help="comma-separated (default: fp32,bf16)")
    group.addoption("--device", default="cpu", help="cpu or cuda (default: cpu)")
    group.addoption("--threads", type=int, help="CPU threads (default: torch's own)")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[OUTCOMES] = []
    if config.getoption("--threads"):
        torch.set_num_threads(config.getoption("--threads"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """``layer`` runs over convolutions, ``block`` over bottlenecks, ``dtype`` over the chosen dtypes."""
    pattern = metafunc.config.getoption("--layers")
    for argument, listed in (("layer", shapes.LAYERS), ("block", shapes.BLOCKS), ("stem", (shapes.STEM,))):
        if argument in metafunc.fixturenames:
            metafunc.parametrize(argument, shapes.named(pattern, listed), ids=str)
    if "dtype" in metafunc.fixturenames:
        names = metafunc.config.getoption("--dtypes").split(",")
        unknown = [name for name in names if name not in DTYPES]
        if unknown:
            raise pytest.UsageError(f"--dtypes: must be among {', '.join(DTYPES)}; got {unknown[0]!r}")
        metafunc.parametrize("dtype", [DTYPES[name] for name in names], ids=names)


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.config.getoption("--device"))


@pytest.fixture(scope="session")
def batch(request: pytest.FixtureRequest) -> int:
    size: int = request.config.getoption("--batch")
    return size


@pytest.fixture(scope="session")
def peaks(device: torch.device) -> versus.Peaks:
    return versus.measure_peaks(device)


@dataclass(frozen=True)
class Maker:
    """Seeded random tensors of the case's dtype."""

    device: torch.device
    dtype: torch.dtype

    def activation(self, *shape: int) -> Tensor:
        values: Tensor = torch.randn(shape, device=self.device).to(self.dtype)
        return values.contiguous(memory_format=torch.channels_last)

    def weight(self, *shape: int) -> Tensor:
        fan_in = shape[1] * shape[2] * shape[3]
        values: Tensor = torch.randn(shape, device=self.device) * math.sqrt(2 / fan_in)
        return values.to(self.dtype)

    def affine(self, channels: int) -> tuple[Tensor, Tensor]:
        """A scale around 1 and a shift around 0, (channels,), fp32."""
        scale = 1 + 0.1 * torch.randn(channels, device=self.device)
        return scale, 0.1 * torch.randn(channels, device=self.device)

    def statistics(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and 1 / standard deviation of ``y``'s channels, fp32."""
        var, mean = torch.var_mean(y.float(), (0, 2, 3), correction=0)
        return mean, (var + 1e-5).rsqrt()

    def gradient_affine(self, channels: int) -> tuple[Tensor, Tensor, Tensor]:
        """p, q and r of BatchNorm's input gradient, of the sizes that occur."""
        p, r = self.affine(channels)
        return p, 0.01 * torch.randn(channels, device=self.device), 0.01 * r


@pytest.fixture
def make(device: torch.device, dtype: torch.dtype) -> Maker:
    torch.manual_seed(0)
    return Maker(device, dtype)


class Contest(Protocol):
    """Times two callables in turn and enters the outcome in the report."""

    def __call__(
        self, ours: Callable[[], object], plain: Callable[[], object], *, moved: int, flops: int
    ) -> None: ...


class Versus(Protocol):
    """Parity first, then ``ops.<op>`` against ``baselines.<op>`` on the same arguments.

    ``comparable`` brings our outputs into the form of the baseline's; ``flops`` are the convolutions'
    (element-wise work is bound by memory); ``options`` are keywords that both take.
    """

    def __call__(
        self,
        op: str,
        *arguments: Any,
        flops: int = 0,
        comparable: Callable[..., Any] = ...,
        **options: Any,
    ) -> None: ...


@pytest.fixture
def contest(
    request: pytest.FixtureRequest,
    benchmark: Any,
    device: torch.device,
    dtype: torch.dtype,
    peaks: versus.Peaks,
) -> Contest:
    """pytest-benchmark times ours; its setup, before every call of ours, times one of plain."""

    def run(ours: Callable[[], object], plain: Callable[[], object], *, moved: int, flops: int) -> None:
        plain_seconds: list[float] = []

        def target() -> None:
            ours()
            versus.wait(device)

        rounds = versus.rounds_that_fit(versus.seconds(target, device) + versus.seconds(plain, device))
        benchmark.pedantic(
            target,
            setup=lambda: plain_seconds.append(versus.seconds(plain, device)),
            rounds=rounds,
            warmup_rounds=versus.WARM_UP,
        )
        if benchmark.disabled:
            return
        name = request.node.name.removeprefix("bench_")
        work = versus.Work(moved, flops, dtype)
        outcome = versus.judge(name, benchmark.stats.stats.data, plain_seconds[-rounds:], work, peaks)
        request.config.stash[OUTCOMES].append(outcome)
        benchmark.extra_info |= {"ratio": outcome.ratio.median, "share of peak": outcome.share}

    return run


def _as_they_are(*outputs: Any) -> Any:
    return outputs


@pytest.fixture
def versus_plain(request: pytest.FixtureRequest, contest: Contest) -> Iterator[Versus]:
    def run(
        op: str,
        *arguments: Any,
        flops: int = 0,
        comparable: Callable[..., Any] = _as_they_are,
        **options: Any,
    ) -> None:
        ours = partial(getattr(ops, op), **options)
        plain = partial(getattr(baselines, op), **options)
        written = versus.check_parity(request.node.name, ours, plain, arguments, comparable)
        moved = written + versus.nbytes(arguments)
        contest(partial(ours, *arguments), partial(plain, *arguments), moved=moved, flops=flops)

    with torch.no_grad():
        yield run


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    outcomes = config.stash[OUTCOMES]
    if outcomes:
        terminalreporter.section(f"ours against plain PyTorch, {torch.get_num_threads()} threads")
        for outcome in outcomes:
            terminalreporter.write_line(str(outcome))
