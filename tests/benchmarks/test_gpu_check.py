"""``make gpu-check``, as far as it goes without a GPU: what it refuses, measures, judges and writes."""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from benchmarks.gpu_check import __main__ as command
from benchmarks.gpu_check import layers, networks, report, suite
from benchmarks.gpu_check.contest import OURS, Absent, Outcome, Row, held
from benchmarks.shapes import Layer
from fusedres.cli.parity import Parity, two_times_rule

CPU = torch.device("cpu")


def parity(error: float = 0.0) -> Parity:
    exact = torch.ones(4, dtype=torch.float64)
    return two_times_rule("logits", exact.float() + error, exact.float(), exact)


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done = CliRunner().invoke(command.app, ["--out", str(tmp_path)])
    assert done.exit_code == 2
    assert "gpu-check needs an NVIDIA GPU, and torch sees none" in done.output
    assert not list(tmp_path.iterdir())


class TestContest:
    def test_everyone_is_timed_and_compared_with_ours(self) -> None:
        makers = {OURS: lambda: lambda: sum(range(2000)), "other": lambda: lambda: sum(range(8000))}
        outcome = held("sums", lambda: (parity(),), makers, 3, CPU)
        assert outcome.passed
        assert [(row.name, row.status, len(row.seconds)) for row in outcome.rows] == [
            (OURS, "measured", 3),
            ("other", "measured", 3),
        ]
        assert outcome.rows[1].ratio is not None and outcome.rows[1].ratio > 1

    def test_who_cannot_run_is_named(self) -> None:
        def absent() -> object:
            raise Absent("no such package")

        def breaks() -> None:
            raise ValueError("first line\nsecond line")

        makers = {OURS: lambda: lambda: None, "absent": absent, "broken": lambda: breaks}
        rows = held("x", lambda: (parity(),), makers, 2, CPU).rows
        assert [(row.status, row.reason) for row in rows] == [
            ("measured", None),
            ("absent", "no such package"),
            ("failed", "ValueError: first line"),
        ]

    def test_nothing_is_timed_without_parity(self) -> None:
        outcome = held("x", lambda: (parity(1.0),), {OURS: lambda: pytest.fail("timed")}, 2, CPU)
        assert not outcome.passed and outcome.rows == ()

    def test_ours_must_run(self) -> None:
        def broken() -> object:
            raise RuntimeError("launch failed")

        outcome = held("x", lambda: (parity(),), {OURS: broken, "other": lambda: lambda: None}, 2, CPU)
        assert not outcome.passed
        assert [row.status for row in outcome.rows] == ["failed", "measured"]

    def test_an_error_is_the_result(self) -> None:
        def broken() -> tuple[Parity, ...]:
            raise RuntimeError("launch failed")

        outcome = held("x", broken, {}, 2, CPU)
        assert not outcome.passed
        assert outcome.error is not None and outcome.error.strip().endswith("RuntimeError: launch failed")


@pytest.mark.parametrize("task", ["infer", "train"])
def test_a_network_on_the_cpu(task: str) -> None:
    outcome = networks.contest(networks.Network(task, "resnet18", 2, 33), 1, CPU, compiled=False)
    assert outcome.passed, outcome
    assert [row.name for row in outcome.rows] == [OURS, "eager, channels_last"]
    assert outcome.name == f"{task} resnet18, batch 2, 33 x 33, bf16"


def test_a_layer_on_the_cpu_without_cudnn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cudnn", None)
    outcome = layers.contest(Layer("small", 16, 9, 24, 3), 2, 1, CPU)
    assert outcome.passed, outcome
    assert {row.name: row.status for row in outcome.rows} == {
        OURS: "measured",
        "eager, channels_last": "measured",
        layers.CUDNN: "absent",
    }


class TestSuite:
    def test_counts_and_first_lines(self, tmp_path: Path) -> None:
        file = tmp_path / "results.xml"
        file.write_text(
            textwrap.dedent("""\
            <testsuites><testsuite>
            <testcase classname="tests.a" name="good"/>
            <testcase classname="tests.a" name="left"><skipped message="why"/></testcase>
            <testcase classname="tests.a" name="bad"><failure message="one&#10;two">trace</failure></testcase>
            <testcase classname="tests.a" name="worse"><error message="broke">trace</error></testcase>
            </testsuite></testsuites>""")
        )
        assert suite.parse(file) == {
            "passed": 1,
            "failed": 2,
            "skipped": 1,
            "failures": [
                {"test": "tests.a::bad", "message": "one"},
                {"test": "tests.a::worse", "message": "broke"},
            ],
        }

    def test_a_run_of_no_tests_is_not_green(self, tmp_path: Path) -> None:
        found = suite.run(tmp_path, ["tests/cuda/test_device.py"])
        assert not found["green"] and found["status"] == 5
        assert "deselected" in Path(found["log"]).read_text()


class TestReport:
    @pytest.fixture
    def found(self) -> report.Report:
        rows = (
            Row(OURS, "measured", None, (1e-3, 2e-3, 3e-3), 1.0, (1.0, 1.0)),
            Row("peer", "measured", None, (3e-3, 6e-3, 9e-3), 3.0, (2.5, 3.5)),
            Row("gone", "absent", "not installed"),
        )
        begun = report.begun(CPU)
        begun["benchmarks"].append(report.entry(Outcome("a network", (parity(),), rows)))
        counts = {"status": 0, "passed": 7, "failed": 0, "skipped": 1, "failures": []}
        begun["tests"] = {**counts, "green": True, "seconds": 1.5, "log": "gpu-tests.log"}
        return begun

    def test_all_is_well(
        self, found: report.Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert command.end(found, tmp_path, "gpu-x") == 0
        text = (tmp_path / "gpu-x.md").read_text()
        assert "Everything passed." in text and "7 passed, 0 failed, 1 skipped in 1.5 s." in text
        assert "| peer | 6.000 (4.500–7.500) | 3.00 (2.50–3.50) |" in text
        assert "| gone | absent: not installed | |" in text
        assert json.loads((tmp_path / "gpu-x.json").read_text()) == found | {
            "benchmarks": json.loads(json.dumps(found["benchmarks"]))
        }
        assert capsys.readouterr().err == ""

    def test_what_failed_is_named_and_what_to_send(
        self, found: report.Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        failure = {"test": "tests.a::bad", "message": "one"}
        found["tests"] |= {"status": 1, "failed": 1, "green": False, "failures": [failure]}
        found["benchmarks"].append(report.entry(Outcome("red", (parity(1.0),))))
        found["benchmarks"].append(report.entry(Outcome("broken", (), error="Traceback\nOSError: no")))
        assert command.end(found, tmp_path, "gpu-x") == 1
        said = capsys.readouterr().err
        for line in (
            "tests: 1 failed, 7 passed (exit status 1)",
            "red: no parity in logits",
            "broken: OSError: no",
        ):
            assert line in said
            assert f"- {line}" in (tmp_path / "gpu-x.md").read_text()
        sent = f"send these files: {tmp_path / 'gpu-x.md'}, {tmp_path / 'gpu-x.json'}, gpu-tests.log"
        assert sent in said
        assert "`tests.a::bad`: one" in (tmp_path / "gpu-x.md").read_text()
