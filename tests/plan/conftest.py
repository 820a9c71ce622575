"""Plans in a folder of their own, a model small enough to tune in no time, and a clock under control."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchvision.models.resnet import BasicBlock

from fusedres import FusedResNet, plan
from fusedres.ops._planned import Choice
from fusedres.plan import _timing
from fusedres.plan._candidates import label
from fusedres.plan._lookup import put_in_force
from fusedres.plan._plan import Entry, Plan, empty
from fusedres.plan._record import record

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def plans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder that plans are kept in; nothing is in force before or after."""
    folder = tmp_path / "plans"
    monkeypatch.setenv("FUSEDRES_PLANS", str(folder))
    plan.clear()
    yield folder
    monkeypatch.setenv("FUSEDRES_PLANS", "0")
    plan.clear()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 3, 32, 32).contiguous(memory_format=torch.channels_last)


@pytest.fixture
def model() -> FusedResNet:
    """Five distinct blocks, the stem among them."""
    return FusedResNet(BasicBlock, [1, 1, 1, 1], num_classes=3).eval()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, float]], None]:
    """Have candidates take the seconds that a table gives for labels and algorithms, 1 where it is silent."""

    def set_clock(table: dict[str, float]) -> None:
        def seconds(call: partial[object], calls: int, device: torch.device) -> float:
            what = call.args[0] if call.args else None
            name = (
                label(what) if isinstance(what, Choice) else getattr(call.args[-1], "name", "onednn").lower()
            )
            return table.get(name, 1.0)

        monkeypatch.setattr(_timing, "seconds", seconds)
        monkeypatch.setattr(_timing, "MOST_ROUNDS", _timing.LEAST_ROUNDS)  # none differs from another

    return set_clock


def decide_all(module: torch.nn.Module, x: Tensor, composition: str, backend: str = "auto") -> Plan:
    """A plan in force in which every block that ``module`` runs on ``x`` has one choice."""
    seen = record(lambda: module(x)).seen
    made = empty(CPU)
    for key in seen:
        made.blocks[key] = Entry(composition, backend, "by the test", "2026-01-01T00:00:00+00:00")
    put_in_force(made)
    return made
