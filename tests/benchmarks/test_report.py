"""The README's tables and the picture come from the results file alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.models import machine, page, readme, report
from benchmarks.models.plot import draw
from benchmarks.models.results import FOLDER, add, load, write_atomically
from benchmarks.models.sweep_plot import draw_sweep
from benchmarks.models.table import console_tables
from tests.benchmarks._results import cell, results, timed


def test_the_tables_say_what_was_measured() -> None:
    text = readme.render(results(), "plot.png")
    assert "![How many times faster fusedres is than each peer](plot.png)" in text
    assert "| ResNet-50, inference fp32, batch 16 | 160.0 images/s | 2.00 <sub>2.00–2.10</sub> | – |" in text
    assert "ONNX Runtime: absent (onnxruntime not installed)" in text
    assert "| ResNet-18, fp32, batch 1 | 10.0 MB | 6.0 MB (0.60 ×) |" in text
    assert (
        "A CPU, 2 cores (avx2), Linux x86_64; 2026-01-02; torch 2.14.1, torchvision 0.29.1, openvino 2026.4"
        in text
    )


@pytest.mark.parametrize(
    ("tuned", "words"),
    [
        ((False, False), "not tuned"),
        ((True, True), "tuned (`fusedres.tune`)"),
        ((True, False), "tuned in part"),
    ],
)
def test_it_says_whether_ours_was_tuned(tuned: tuple[bool, bool], words: str) -> None:
    found = results()
    one = found["cells"]["infer-resnet50-fp32-b16-t2"]
    found["cells"]["infer-resnet50-fp32-b1-t2"] = {**one, "tuned": tuned[0]}
    found["cells"]["infer-resnet50-fp32-b16-t2"] = {**one, "tuned": tuned[1]}
    assert f"fusedres was {words}." in readme.render(found)
    assert "fusedres was not tuned." in readme.render(results()), "files from before"


def test_machines_that_share_a_name_have_files_of_their_own() -> None:
    names = {
        machine.slug({"cpu": "A Cloud's CPU", "cores": 2, "isa": isa})
        for isa in ([], ["avx2"], ["avx2", "avx512f"], ["avx2", "avx512f", "avx512_bf16"])
    }
    assert names == {
        "a-cloud-s-cpu-2-cores",
        "a-cloud-s-cpu-avx2-2-cores",
        "a-cloud-s-cpu-avx512f-2-cores",
        "a-cloud-s-cpu-avx512-bf16-2-cores",
    }
    assert "### A CPU, AVX2, 2 cores" in readme.render(results())


def test_no_speed_up_while_parity_is_red() -> None:
    red = results()
    red["cells"]["infer-resnet50-fp32-b16-t2"] = cell(
        {"fusedres": timed(0.1), "eager": timed(9.0)}, green=False
    )
    text = readme.render(red)
    assert "parity is red: no speed-up reported" in text
    assert "90.00" not in text
    assert report.ratios(red["cells"]["infer-resnet50-fp32-b16-t2"]) == {}


def test_the_readme_shows_resnet50_on_all_cores_with_one_thread_beside() -> None:
    found = results()
    cells = found["cells"]
    cells["infer-resnet50-fp32-b16-t1"] = cell(
        {"fusedres": timed(0.2), "eager": timed(0.5), "openvino": timed(0.25)}
    )
    cells["infer-resnet50-fp32-b16-t2-fast"] = cells["infer-resnet50-fp32-b16-t2"]
    cells["infer-resnet101-fp32-b16-t2"] = cells["infer-resnet50-fp32-b16-t2"]
    cells["infer-resnet50-fp32-b1-t2-busy"] = cells["infer-resnet50-fp32-b16-t2"]
    text = readme.render(found)
    assert "× the best peer, one thread |" in text
    assert "2.00 <sub>2.00–2.10</sub> | – | 1.25 <sub>1.25–1.25</sub> OpenVINO |" in text
    assert "| ResNet-50, inference fp32 `fast`, batch 16 | 160.0 images/s |" in text
    assert "1 thread" not in text and "ResNet-101" not in text and "inference fp32, batch 1 " not in text


def test_the_page_has_the_rest(tmp_path: Path) -> None:
    found = results()
    cells = found["cells"]
    one = cells["infer-resnet50-fp32-b16-t2"]
    for batch in (1, 2, 4):
        cells[f"infer-resnet50-fp32-b{batch}-t1"] = one
    cells["infer-resnet101-fp32-b16-t2"] = one
    beside = {
        "fusedres": {**timed(0.15, 0.15), "alone_seconds": [[0.1], [0.1]]},
        "openvino": {**timed(0.24, 0.24), "alone_seconds": [[0.12], [0.12]]},
    }
    cells["infer-resnet50-fp32-b1-t2-pinned"] = cell(beside)
    assert draw_sweep(found, tmp_path / "sweep.png")
    text = page.render(found, "sweep.png")
    assert "| ResNet-101, inference fp32, batch 16 | 160.0 images/s | 2.00" in text
    assert "![ResNet-50 at batch sizes 1 to 64](sweep.png)" in text
    assert "| ResNet-50, inference fp32, batch 4, 1 thread | 40.0 images/s | 2.00" in text
    assert "| 30 (0.60 × eager) | 50 | 3 | 3 |" in text
    assert "1.50 <sub>1.50–1.50</sub> | 2.00 <sub>2.00–2.00</sub> | 1.20 → 1.60 |" in text
    page.write_page(tmp_path / "page.md", [text, ""])
    assert (tmp_path / "page.md").read_text().startswith("# Benchmarks")


def test_two_batch_sizes_make_no_curve(tmp_path: Path) -> None:
    assert not draw_sweep(results(), tmp_path / "sweep.png")
    assert not list(tmp_path.iterdir())


def test_only_what_stands_between_the_marks_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(f"# Title\n\n{readme.START}\nold\n{readme.END}\n\nafter\n")
    readme.write_readme(path, ["new"])
    assert path.read_text() == f"# Title\n\n{readme.START}\nnew\n{readme.END}\n\nafter\n"


@pytest.mark.parametrize(
    "text", ["", readme.START, f"{readme.END}{readme.START}", readme.START * 2 + readme.END]
)
def test_a_readme_without_its_marks_is_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "README.md"
    path.write_text(text)
    with pytest.raises(ValueError, match="must hold one line <!-- bench:start -->"):
        readme.write_readme(path, ["new"])
    assert path.read_text() == text


def test_cells_are_merged_into_the_file(tmp_path: Path) -> None:
    path = tmp_path / "results" / "machine.json"
    add(path, "infer-resnet50-fp32-b1-t2", cell({"fusedres": timed(0.123456789)}))
    add(path, "infer-resnet50-bf16-b1-t2", cell({"fusedres": timed(0.2)}))
    cells = load(path)["cells"]
    assert list(cells) == ["infer-resnet50-fp32-b1-t2", "infer-resnet50-bf16-b1-t2"]
    assert cells["infer-resnet50-fp32-b1-t2"]["peers"]["fusedres"]["seconds"] == [[0.123457]]
    assert [p.name for p in path.parent.iterdir()] == ["machine.json"]


@pytest.mark.parametrize("content", ["", "[]", '{"format": 0, "cells": {}}'])
def test_a_file_that_holds_no_results_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "machine.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"machine\.json: must be"):
        load(path)


def test_nothing_else_lies_where_the_report_looks_for_results() -> None:
    files = sorted(FOLDER.glob("*.json"))
    assert files and all(load(file)["cells"] for file in files)


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def refuse(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(OSError, match="no space left"):
        write_atomically(path, b"new")
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]


def test_the_picture_is_a_png(tmp_path: Path) -> None:
    draw(results(), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_the_console_shows_every_chosen_cell() -> None:
    both = results()
    assert len(console_tables(both, set(both["cells"]))) == 2
    assert len(console_tables(both, {"saved-resnet18-fp32-b1-t2"})) == 1
