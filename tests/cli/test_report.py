"""The written results: whole or not at all, and the same in every form."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from fusedres.cli.chart import draw_chart
from fusedres.cli.measure import Timing
from fusedres.cli.networks import OURS, PLAIN, PLAIN_NHWC
from fusedres.cli.parity import Agreement, Parity
from fusedres.cli.report import as_json, markdown, write_json
from fusedres.cli.results import Comparison, Section, Seen

PARITY = Parity("logits", 1e-6, 1e-6, 0.0, 2e-6, 1e-7, 1e-7, 0.0, 2e-7)
SECTION = Section(
    mode="inference",
    parity=(PARITY,),
    agreement=Agreement(images=4, top1=4, top5=3, near_ties=1, wrong=()),
    seen=(Seen("cat", (281, 0.9), (281, 0.9)), Seen("coffee", (967, 0.5), (968, 0.4))),
    timings=(
        Timing(PLAIN, (0.4, 0.5, 0.6)),
        Timing(PLAIN_NHWC, (0.3, 0.4, 0.5)),
        Timing(OURS, (0.2, 0.2, 0.2)),
    ),
    calls=1,
    kernels={PLAIN: 70, PLAIN_NHWC: 70, OURS: 22},
    saved={},
)
COMPARISON = Comparison(
    model="resnet18",
    batch=4,
    size=64,
    dtype="fp32",
    device="a processor, 2 cores",
    threads=1,
    rounds=3,
    seed=0,
    weights_kind="seeded",
    weights="seed 0",
    photos=("cat", "coffee"),
    unreadable=(),
    sections=(SECTION,),
    versions={"torch": "1", "torchvision": "2", "fusedres": "3"},
)


def test_speed_is_held_against_the_faster_peer() -> None:
    assert SECTION.fastest_peer.name == PLAIN_NHWC
    assert SECTION.speedup.of_medians == pytest.approx(2.0)


def test_markdown_has_every_row() -> None:
    text = markdown(COMPARISON)
    for row in ("| ms a batch |", "| images/s | 8.0 | 10.0 | 20.0 |", "| kernels called | 70 | 70 | 22 |"):
        assert row in text
    assert "| same top 5 |  |  | 3/4 (+1 near ties) |" in text
    assert "| parity |  |  | passed |" in text
    assert "never trained" in text


def test_a_failed_parity_is_said_everywhere() -> None:
    failed = dataclasses.replace(PARITY, ours_max=3e-6)
    comparison = dataclasses.replace(COMPARISON, sections=(dataclasses.replace(SECTION, parity=(failed,)),))
    assert not comparison.passed
    assert "FAILED" in markdown(comparison)
    assert as_json(comparison)["passed"] is False


def test_json_holds_settings_versions_and_raw_timings(tmp_path: Path) -> None:
    path = tmp_path / "compare.json"
    write_json(path, as_json(COMPARISON))
    content = json.loads(path.read_text())
    assert content["versions"] == COMPARISON.versions
    assert content["threads"] == 1 and content["device"] == COMPARISON.device
    (section,) = content["sections"]
    assert section["timings"][2]["seconds"] == [0.2, 0.2, 0.2]
    assert section["speedup"]["against"] == PLAIN_NHWC
    assert section["parity"][0]["passed"] is True


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "compare.json"
    write_json(path, {"run": 1})

    def no_space(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "replace", no_space)
    with pytest.raises(OSError, match="no space"):
        write_json(path, {"run": 2})
    assert json.loads(path.read_text()) == {"run": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["compare.json"]


@pytest.mark.parametrize("names", [None, [f"a rather long class name {i}" for i in range(1000)]])
def test_chart_is_a_picture(tmp_path: Path, names: list[str] | None) -> None:
    path = tmp_path / "compare.png"
    draw_chart(COMPARISON, [torch.rand(64, 64, 3)] * 2, names, path)
    with Image.open(path) as image:
        assert image.format == "PNG" and image.width > 1000
    assert [p.name for p in tmp_path.iterdir()] == ["compare.png"]
