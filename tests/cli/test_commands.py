"""The commands as a user runs them."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

import fusedres
from fusedres.cli import compare
from fusedres.cli.environment import VARIABLES
from fusedres.cli.info import info
from fusedres.cli.networks import OURS, build_ours
from fusedres.cli.tune import tune
from fusedres.cli.weights import Weights
from fusedres.plan import _timing
from fusedres.plan._lookup import put_in_force
from tests.plan.conftest import decide_all

from .conftest import Invoke

#: The smallest comparison that still goes through every part.
TINY = ("--model", "resnet18", "--batch", 2, "--rounds", 1, "--size", 32)

#: In training the last stage needs some values a channel: of two, BN makes ±1, whatever their difference.
TINY_TRAINING = (
    "--model",
    "resnet18",
    "--batch",
    4,
    "--rounds",
    1,
    "--size",
    64,
    "--train",
    "--weights",
    "seeded",
)


def test_module_and_help() -> None:
    command = [sys.executable, "-m", "fusedres", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert all(name in done.stdout for name in ("info", "compare", "classify", "tune"))


def test_info(invoke: Invoke) -> None:
    result = invoke("info")
    assert result.exit_code == 0
    for word in ("torchvision", "reference", "triton", "extension", *(v.name for v in VARIABLES)):
        assert word in result.stdout


def test_info_says_what_each_layer_runs_and_why(invoke: Invoke) -> None:
    result = invoke("info", "--model", "resnet18", "--batch", 2, "--size", 32, "--train", "--device", "cpu")
    assert result.exit_code == 0, result.output
    for word in ("layers of resnet18", "layer4.1", "basic_block 2x64x8x8", "by rule: "):
        assert word in result.stdout


def test_info_keeps_names_whole_on_a_narrow_terminal(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    result = invoke("info")
    for word in (*(v.name for v in VARIABLES), "torchvision", "reference", "extension_reason"):
        assert word in result.stdout


def test_info_refuses_options_of_a_model_without_one(invoke: Invoke) -> None:
    result = invoke("info", "--device", "cpu", "--batch", 1, "--train")
    assert result.exit_code == 2
    assert "--device, --batch, --train must come with --model; got no --model" in result.stderr


def test_info_tells_by_default_of_what_tune_tunes_by_default() -> None:
    told, tuned = inspect.signature(info).parameters, inspect.signature(tune).parameters
    shared = told.keys() & tuned.keys() - {"model"}
    assert {"batch", "dtype", "train", "size", "device", "threads", "precision"} == shared
    assert {name: told[name].default for name in shared} == {name: tuned[name].default for name in shared}


def test_version(invoke: Invoke) -> None:
    result = invoke("--version")
    assert result.exit_code == 0 and result.stdout == f"fusedres {fusedres.__version__}\n"


@pytest.mark.slow
def test_tune_chooses_says_why_and_keeps_it(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUSEDRES_PLANS", str(tmp_path / "plans"))
    arguments = ("--model", "resnet18", "--batch", 1, "--size", 32, "--device", "cpu", "--threads", 1)
    result = invoke("tune", *arguments, "--budget", 60)
    try:
        assert result.exit_code == 0, result.output
        assert "of plain's time in" in result.stdout or "nothing else was clearly faster" in result.stdout
        (path,) = (tmp_path / "plans").glob("*.json")
        assert f"plan stored {path}" in result.stdout
        told = invoke("info", "--model", "resnet18", *arguments[2:])
        assert "measured: " in told.stdout
    finally:
        fusedres.plan.clear()


def test_compare_inference(
    invoke: Invoke, photo_files: list[Path], weights_file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "deep" / "results"
    images = ("--images", *photo_files)  # as a shell's *.png expands: the option takes one, the rest follow
    result = invoke("compare", *TINY, *images, "--weights", weights_file, "--out", folder)
    assert result.exit_code == 0, result.output
    assert str(folder / "compare.png") in result.stdout.splitlines()[-1]
    content = json.loads((folder / "compare.json").read_text())
    assert content["passed"] is True
    assert content["plan"] == "the default rules, not tuned"
    assert content["photos"] == [path.stem for path in photo_files]
    assert content["weights_kind"] == "file"
    (section,) = content["sections"]
    assert section["mode"] == "inference"
    assert section["kernels"][OURS] < section["kernels"]["torchvision"]
    assert "passed" in (folder / "compare.md").read_text()
    with Image.open(folder / "compare.png") as image:
        assert image.format == "PNG"


def test_compare_says_by_a_plan_only_where_one_decided(
    invoke: Invoke, weights_file: Path, tmp_path: Path
) -> None:
    arguments = ("compare", *TINY, "--weights", weights_file, "--threads", 1, "--device", "cpu", "--out", "o")
    model = fusedres.resnet18(num_classes=10).eval()
    try:
        for batch, blocks, words in (
            (3, None, "the default rules, not tuned"),
            (2, None, "a stored plan"),
            (2, 1, "a stored plan for 1 of 8 distinct blocks"),
        ):
            images = torch.randn(batch, 3, 32, 32).contiguous(memory_format=torch.channels_last)
            with torch.inference_mode():
                made = decide_all(model, images, "stats", "cpu")
            for name in list(made.blocks)[blocks or len(made.blocks) :]:
                del made.blocks[name]
            put_in_force(made)
            result = invoke(*arguments)
            assert result.exit_code == 0, result.output
            assert json.loads(Path("o/compare.json").read_text())["plan"] == words
            fusedres.plan.clear()
    finally:
        fusedres.plan.clear()


def test_compare_training_with_seeded_weights(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke("compare", *TINY_TRAINING, "--threads", 1, "--out", tmp_path / "o")
    assert result.exit_code == 0, result.output
    assert "never trained" in result.stdout
    training = json.loads((tmp_path / "o" / "compare.json").read_text())["sections"][1]
    assert {p["name"] for p in training["parity"]} == {"logits", "gradients", "running statistics"}
    assert 0 < training["saved"][OURS] < training["saved"]["torchvision"]


@pytest.mark.slow
def test_compare_can_tune_first_and_says_so(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_timing, "LONG_ENOUGH", 0.0)  # the fewest rounds: whatever wins, it says so
    try:
        result = invoke("compare", *TINY_TRAINING, "--tune", "--threads", 1, "--out", tmp_path / "o")
    finally:
        fusedres.plan.clear()
    assert result.exit_code == 0, result.output
    assert "fusedres by tuned just before" in result.stdout
    assert json.loads((tmp_path / "o" / "compare.json").read_text())["plan"] == "tuned just before"


@pytest.mark.slow
def test_compare_bf16(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke("compare", *TINY_TRAINING, "--dtype", "bf16", "--out", tmp_path / "o")
    assert result.exit_code == 0, result.output


def test_a_planted_error_fails_the_comparison(
    invoke: Invoke, weights_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(name: str, weights: Weights) -> nn.Module:
        model = build_ours(name, weights)
        with torch.no_grad():
            model.get_parameter("layer3.0.bn1.weight")[0] *= 1.01
        return model

    monkeypatch.setattr(compare, "build_ours", wrong)
    result = invoke("compare", *TINY, "--weights", weights_file, "--out", "o")
    assert result.exit_code == 1
    assert "FAILED" in result.stdout
    assert json.loads(Path("o/compare.json").read_text())["passed"] is False


def test_compare_names_an_unreadable_image_and_goes_on(
    invoke: Invoke, photo_files: list[Path], weights_file: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    result = invoke(
        "compare", *TINY, "--images", broken, photo_files[0], "--weights", weights_file, "--out", "o"
    )
    assert result.exit_code == 0, result.output
    assert "broken.png cannot be read" in result.stderr
    assert "broken.png" in json.loads(Path("o/compare.json").read_text())["unreadable"][0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "vgg16"), "--model must be one of resnet18"),
        (("--dtype", "int8"), "--dtype must be one of fp32, bf16; got 'int8'"),
        (("--device", "abacus"), "--device must be auto, cpu, cuda or cuda:N; got 'abacus'"),
        (("--device", "cuda:99"), "--device must be present; got 'cuda:99'"),
        (("--weights", "none.pth"), "a file that exists; got 'none.pth'"),
        (("--images", "none.png"), "--images must hold at least one image that can be read; got 1"),
        (("--out", "/dev/null/o"), "--out must be a folder that can be made"),
    ],
)
def test_bad_options_are_named(invoke: Invoke, arguments: tuple[str, ...], message: str) -> None:
    result = invoke("compare", *TINY, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize("command", ["tune", "info"])
def test_bad_options_of_a_subject_are_named(command: str, invoke: Invoke) -> None:
    for arguments, message in (
        (("--model", "vgg16"), "--model must be one of resnet18"),
        (("--model", "resnet18", "--dtype", "int8"), "--dtype must be one of fp32, bf16; got 'int8'"),
        (("--model", "resnet18", "--device", "abacus"), "--device must be auto, cpu, cuda or cuda:N"),
        (
            ("--model", "resnet18", "--batch", 1, "--size", 32, "--train", "--device", "cpu"),
            "the model cannot run: Expected more than 1 value per channel when training",
        ),
    ):
        result = invoke(command, *arguments)
        assert result.exit_code == 2 and message in result.stderr


def test_an_impossible_comparison_is_refused_in_a_line(
    invoke: Invoke, weights_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("compare", *TINY, "--weights", weights_file, "--device", "cpu")
    for more, message in (
        (("--batch", 1, "--train"), "error: the model cannot run: Expected more than 1 value per channel"),
        (
            ("--tune",),
            "error: the model cannot run: tune: `model` must run fused blocks; composition 'plain'",
        ),
    ):
        with fusedres.composition("plain" if "--tune" in more else "auto"):
            result = invoke(*arguments, *more)
        assert result.exit_code == 2, result.output
        assert message in result.stderr and result.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["classify", "compare", "tune", "info"])
def test_a_back_end_that_cannot_serve_is_refused_in_a_line(
    command: str, invoke: Invoke, photo_files: list[Path], weights_file: Path
) -> None:
    weights = ("--weights", weights_file)
    arguments: dict[str, tuple[object, ...]] = {
        "classify": (photo_files[0], "--model", "resnet18", *weights),
        "compare": (*TINY, *weights),
        "tune": ("--model", "resnet18", "--batch", 1, "--size", 32),
        "info": ("--model", "resnet18", "--batch", 1, "--size", 32),
    }
    with fusedres.backend("cuda"):
        result = invoke(command, *arguments[command], "--device", "cpu")
    assert result.exit_code == 2, result.output
    assert "error: the model cannot run: fusedres: back-end 'cuda' cannot serve this call" in result.stderr
    assert (
        len(result.stderr.strip().splitlines()) == 1
    )  # a progress bar that is taken away leaves an empty one


def test_a_bug_is_not_taken_for_a_refusal(
    invoke: Invoke, photo_files: list[Path], weights_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("a bug")

    monkeypatch.setattr(fusedres.FusedResNet, "forward", broken)
    result = invoke("classify", photo_files[0], "--model", "resnet18", "--weights", weights_file)
    assert isinstance(result.exception, RuntimeError) and str(result.exception) == "a bug"


def test_classify(invoke: Invoke, photo_files: list[Path], weights_file: Path) -> None:
    result = invoke("classify", "--model", "resnet18", "--weights", weights_file, *photo_files)
    assert result.exit_code == 0, result.output
    assert all(path.stem in result.stdout for path in photo_files)
    assert result.stdout.count("class ") >= 10


def test_classify_goes_on_after_an_unreadable_image(
    invoke: Invoke, photo_files: list[Path], weights_file: Path
) -> None:
    arguments = ("--model", "resnet18", "--weights", weights_file, "missing.jpg", photo_files[0])
    result = invoke("classify", *arguments)
    assert result.exit_code == 1
    assert "image missing.jpg cannot be read" in result.stderr
    assert photo_files[0].stem in result.stdout


def test_classify_without_pretrained_weights_says_so(invoke: Invoke, photo_files: list[Path]) -> None:
    result = invoke("classify", "--model", "resnet18", "--weights", "seeded", photo_files[0])
    assert result.exit_code == 0, result.output
    assert "never trained" in result.stderr
