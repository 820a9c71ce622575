"""The arithmetic of `make kernels`, and that docs/budgets.md says what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import benchmarks.kernels  # noqa: F401  makes ptxemu importable, where the checkout has it

pytest.importorskip("ptxemu", reason="tools/ptxemu is not in this checkout")

from ptxemu.counters import CLASSES, NAMES

from benchmarks.kernels import document, layers
from benchmarks.kernels.budgets import Finding
from benchmarks.kernels.chips import CHIPS
from benchmarks.kernels.compiled import instructions_a_product, ptx_code, with_targets
from benchmarks.kernels.exceptions import stale, unexplained
from benchmarks.kernels.report import Sheet
from benchmarks.kernels.scaling import Scaling, name_of
from benchmarks.kernels.time_model import COUNTED, times

A100, H100 = CHIPS
GEMM = "_ZN8fusedres4cuda16conv_gemm_kernelIvE"


def counters(**given: int) -> dict[str, int]:
    return dict.fromkeys(COUNTED, 0) | given


def test_each_resource_is_busy_for_its_count_over_its_rate() -> None:
    busy = times(
        counters(
            dram_read_bytes=3 * 10**12, dram_write_bytes=10**12, ld_global_sectors=10**11,
            mma_macs=156 * 10**12,
            st_shared_wavefronts=108 * 1410 * 10**6, issue_slots=108 * 2256 * 10**7,
        ),
        A100,
    )  # fmt: skip
    assert busy.named == pytest.approx(
        {"DRAM": 2.0, "L2": 3.2e12 / 4.5e12, "tensor cores": 1.0, "shared memory": 1.0, "issue slots": 4.0},
        rel=2e-3,
    )
    assert busy.limit == "issue slots" and busy.longest == pytest.approx(4.0)
    assert busy.worst_other == ("issue slots", pytest.approx(2.0))


def test_peaks_are_the_data_sheets() -> None:
    """2 × multiply-adds a cycle × processors × clock: 312 and 989 TFLOP/s, of which mma.sync has 62%."""
    peaks = [2 * chip.macs_a_cycle * chip.processors * chip.clock / 1e12 for chip in CHIPS]
    assert peaks == pytest.approx([312, 0.62 * 989], rel=2e-3)


def call(op: str, kernel: str, grid: list[int], result: int, **counted: int) -> dict[str, object]:
    raw = [0] * (2 * len(CLASSES)) + [counted.get(name, 0) for name in NAMES]
    launch = {"kernel": kernel, "grid": grid, "block": [1, 1, 1], "smem": 0, "ms": 0.0, "raw": raw}
    return {"op": op, "must_move": 100, "result": result, "launches": [launch]}


def slots(kernel: str, counted: dict[str, int]) -> float:
    return float(counted["warp_inst_total"])


def test_a_convolution_grows_with_its_grid_and_its_bytes_with_the_images() -> None:
    """Weights of 1000 bytes, 100 an image read and 50 written, and 8 bytes of statistics a tile."""

    def at(images: int, tiles: int) -> list[dict[str, object]]:
        read, written = 1000 + 100 * images, 50 * images + 8 * tiles
        conv = call("conv_stats", GEMM, [tiles, 1, 1], 50 * images, dram_read_bytes=read,
                    dram_write_bytes=written, mma_macs=64 * tiles)  # fmt: skip
        finalize = call("bn_finalize", "13bn_finalize_kernel", [1, 1, 1], 4, dram_read_bytes=8 * tiles)
        return [conv, finalize]

    conv, finalize = Scaling(at(1, 1), at(2, 1), at(256, 98), 256, slots).launches
    assert conv.counters["mma_macs"] == 64 * 98
    assert conv.dram == 1000 + 150 * 256 + 8 * 98
    assert finalize.counters["dram_read_bytes"] == 8 * 98


def test_parts_of_a_weight_gradient_grow_with_its_splits() -> None:
    kernel = "_ZN8fusedres4cuda17conv_wgrad_kernelIvE"

    def at(images: int, splits: int) -> list[dict[str, object]]:
        read, parts = 100 * images, 400 * splits
        return [call("conv_wgrad", kernel, [3, 1, splits], 200, dram_read_bytes=read, dram_write_bytes=parts)]

    (launch,) = Scaling(at(1, 2), at(2, 2), at(256, 36), 256, slots).launches
    assert launch.dram == 100 * 256 + 400 * 36


def test_networks_that_differ_are_refused() -> None:
    one, other = ([call(op, GEMM, [1, 1, 1], 0)] for op in ("conv_stats", "conv_dgrad"))
    with pytest.raises(ValueError, match="different ops"):
        Scaling(one, other, one, 256, slots)


def test_a_kernels_own_name() -> None:
    assert name_of(GEMM) == "conv_gemm_kernel"


def test_the_loop_of_a_ptx_that_triton_wrote() -> None:
    """Its labels have comments behind them; the loop is the label's to the branch's: four instructions."""
    listing = """.visible .entry conv_kernel(
    mov.u32 %r1, 0;
$L__BB0_1:                              // =>This Inner Loop Header: Depth=1
    mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 { %r2 }, { %r3 }, { %r4 }, { %r2 };
    mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 { %r5 }, { %r3 }, { %r4 }, { %r5 };
    add.s32 %r1, %r1, 1;
    @%p1 bra \t$L__BB0_1;
    ret;
"""
    assert instructions_a_product(with_targets(ptx_code(listing)["conv_kernel"]), "mma.sync") == 4 / 2


def test_the_ideal_of_a_reduction() -> None:
    """The stem's are 7 rows of 21 values. A 3×3 gradient of stride 2 has 1, 2, 2 and 4 taps by parity."""
    stem, strided = (next(x for x in layers.LAYERS if x.name == n) for n in ("conv1", "layer2.0.conv2"))
    assert layers.products(stem, 2, False) == [(2 * 112 * 112, 7, 21)]
    assert sorted(layers.products(strided, 2, True)) == [(2 * 28 * 28, taps, 128) for taps in (1, 2, 2, 4)]


def test_a_table_replaces_what_stands_between_its_marks() -> None:
    text = "before\n<!-- t: begin -->\nold\n<!-- t: end -->\nafter\n"
    table = Sheet("", ["a", "b"], [["1", "2"]]).markdown()
    assert document.with_table(text, "t", table) == (
        "before\n<!-- t: begin -->\n| a | b |\n| --- | --- |\n| 1 | 2 |\n<!-- t: end -->\nafter\n"
    )
    with pytest.raises(ValueError, match="lacks the marks"):
        document.with_table(text, "other", table)


def test_one_table_counted_alone_leaves_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "RESULTS", tmp_path / "counted.json")
    document.save({"a": Sheet("", ["x"], [["1"]]), "b": Sheet("", ["x"], [["2"]])}, [])
    document.replace({"b": Sheet("", ["y"], [["3"]])})
    kept = json.loads(document.RESULTS.read_text())
    assert kept == {
        "tables": {"a": {"columns": ["x"], "rows": [["1"]]}, "b": {"columns": ["y"], "rows": [["3"]]}},
        "budgets": [],
    }


def test_rows_counted_anew_replace_theirs_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "RESULTS", tmp_path / "counted.json")
    columns = ["layer", "use", "by", "x"]
    old = Sheet("t", columns, [["a", "u", "cuda", "1"], ["a", "v", "cuda", "2"], ["c", "u", "cuda", "3"]])
    new = Sheet("t", columns, [["b", "u", "cuda", "5"], ["a", "u", "cuda", "4"]])
    assert document.with_others("t", new) == new, "there is no file yet"
    document.save({"t": old}, [])
    assert document.with_others("t", new).rows == [
        ["a", "u", "cuda", "4"], ["a", "v", "cuda", "2"], ["b", "u", "cuda", "5"], ["c", "u", "cuda", "3"],
    ]  # fmt: skip
    others = new._replace(columns=["another"])
    assert document.with_others("t", others) == others, "rows of other columns do not fit"


def test_the_page_says_what_the_results_file_says() -> None:
    text = document.DOCUMENT.read_text()
    written = text
    for key, table in json.loads(document.RESULTS.read_text())["tables"].items():
        written = document.with_table(written, key, Sheet("", table["columns"], table["rows"]).markdown())
    assert written == text, "write it: make kernels"


def test_every_missed_budget_has_its_reason_and_no_reason_is_left_over() -> None:
    budgets = json.loads(document.RESULTS.read_text())["budgets"]
    found = [Finding(*(entry[name] for name in Finding._fields)) for entry in budgets]
    assert found and [entry["met"] for entry in budgets] == [finding.met for finding in found]
    assert not unexplained(found) and not stale(found)
