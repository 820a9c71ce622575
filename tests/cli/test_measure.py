"""Order of rounds, medians, kernels called and bytes kept for backward."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fusedres.cli.measure import Timing, count_kernels, interleave, quartiles, saved_bytes, speed_ratio

CPU = torch.device("cpu")


def test_medians_and_quartiles() -> None:
    timing = Timing("ours", (1.0, 9.0, 2.0, 3.0, 4.0))
    assert timing.median == 3.0
    assert timing.quartiles == (2.0, 4.0)
    assert quartiles([7.0]) == (7.0, 7.0)


def test_ratio_pairs_rounds() -> None:
    ratio = speed_ratio(Timing("ours", (1.0, 2.0, 4.0)), Timing("torch", (2.0, 6.0, 4.0)))
    assert ratio.of_medians == 2.0
    assert ratio.median_of_pairs == 2.0
    assert ratio.quartiles == (1.5, 2.5)


def test_each_round_starts_with_another_contender(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fusedres.cli.measure.SHORTEST_SAMPLE", 0.0)
    order: list[str] = []
    rounds: list[None] = []
    contenders = {name: (lambda name=name: order.append(name)) for name in "abc"}
    timings, calls = interleave(contenders, 3, CPU, lambda: rounds.append(None))
    assert calls == 1
    assert "".join(order) == "aabbcc" + "abc" + "bca" + "cab"
    assert [(t.name, len(t.seconds)) for t in timings] == [("a", 3), ("b", 3), ("c", 3)]
    assert len(rounds) == 3


def test_short_calls_are_repeated() -> None:
    _, calls = interleave({"a": lambda: None}, 1, CPU)
    assert calls > 1


def test_kernels_are_innermost_ops_that_move_data() -> None:
    model = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()).eval()
    x = torch.randn(1, 4, 64, 64)
    with torch.inference_mode():
        assert count_kernels(lambda: model(x), CPU) == 2  # flattening is a view
        # of channels_last it is a copy
        assert count_kernels(lambda: model(x.contiguous(memory_format=torch.channels_last)), CPU) == 4


def test_an_ops_preparations_count_beside_it() -> None:
    x = torch.randn(4, 4)
    assert count_kernels(x.sum, CPU) == 2  # the output is filled with zeros, then added to
    assert count_kernels(lambda: x.t().contiguous(), CPU) == 1


def test_an_op_that_only_calls_others_counts_as_them() -> None:
    a, b = torch.randn(4, 4), torch.randn(4, 4)
    assert count_kernels(lambda: torch.ops.aten.linear(a, b), CPU) == 1
    assert count_kernels(lambda: a.view(2, 8).t(), CPU) == 0


def test_saved_bytes_are_distinct_storages_without_parameters() -> None:
    model = nn.Sequential(nn.Linear(8, 16, bias=False), nn.ReLU(), nn.Linear(16, 4, bias=False))
    x = torch.randn(2, 8)
    # the input, and the ReLU's output: kept by the ReLU and by the second layer, counted once
    assert saved_bytes(lambda: model(x).sum(), model) == 4 * (2 * 8 + 2 * 16)
