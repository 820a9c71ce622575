"""Weights from a file, from torchvision's enum, and from a seed and the photographs."""

from __future__ import annotations

import pickle
import urllib.error
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import ResNet18_Weights, resnet18

from fusedres.cli.console import UserError
from fusedres.cli.photos import Photo
from fusedres.cli.weights import Weights, calibrate, find_weights, read_state_dict


def _find(spec: str | None, photos: list[Photo]) -> Weights:
    return find_weights("resnet18", spec, photos[:2], seed=0, size=32)


def _no_network(*_: object, **__: object) -> NoReturn:
    raise urllib.error.URLError("no route to host")


def test_a_file_written_by_torch_save(
    weights_file: Path, state_dict: dict[str, Tensor], photos: list[Photo]
) -> None:
    weights = _find(str(weights_file), photos)
    assert weights.kind == "file"
    assert weights.num_classes == 10
    assert weights.class_name(3) == "class 3"  # ten classes are not ImageNet's
    assert all(torch.equal(weights.state_dict[name], tensor) for name, tensor in state_dict.items())


def test_a_safetensors_file(tmp_path: Path, state_dict: dict[str, Tensor]) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    path = tmp_path / "weights.safetensors"
    safetensors.save_file(state_dict, path)
    found = read_state_dict(path)
    assert found.keys() == state_dict.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in state_dict.items())


@pytest.mark.parametrize("entry", ["state_dict", "model"])
def test_a_checkpoint_of_a_ddp_run(tmp_path: Path, state_dict: dict[str, Tensor], entry: str) -> None:
    path = tmp_path / "checkpoint.pth"
    torch.save({"epoch": 3, entry: {f"module.{name}": tensor for name, tensor in state_dict.items()}}, path)
    assert read_state_dict(path).keys() == state_dict.keys()


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_a_file_of_something_else_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("these are not weights")
    with pytest.raises(UserError, match=rf"must be a file with a state dict; .*{name} cannot be read as one"):
        read_state_dict(path)


@pytest.mark.parametrize(
    ("content", "described"),
    [
        ([1, 2], "a list"),
        ({}, "an empty dict"),
        ({"a": 1}, "a dict of 1 entries that are not all tensors"),
        (torch.zeros(2), "a Tensor"),
    ],
)
def test_a_file_that_holds_no_state_dict(tmp_path: Path, content: object, described: str) -> None:
    path = tmp_path / "odd.pth"
    torch.save(content, path)
    with pytest.raises(UserError, match=f"odd.pth holds {described}"):
        read_state_dict(path)


class _Touch:
    """Unpickling it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_no_code_of_a_file_is_run(tmp_path: Path) -> None:
    touched, path = tmp_path / "touched", tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps({"fc.weight": _Touch(touched)}, protocol=2))
    with pytest.raises(UserError, match=r"evil\.pth cannot be read"):
        read_state_dict(path)
    assert not touched.exists()


def test_weights_of_another_model(tmp_path: Path, state_dict: dict[str, Tensor], photos: list[Photo]) -> None:
    path = tmp_path / "w.pth"
    torch.save({name: tensor for name, tensor in state_dict.items() if name != "layer1.0.conv1.weight"}, path)
    with pytest.raises(UserError, match=r"must fit resnet18; .* lacks layer1\.0\.conv1\.weight"):
        _find(str(path), photos)
    torch.save({**state_dict, "head.weight": torch.zeros(1)}, path)
    with pytest.raises(UserError, match=r"has unknown head\.weight"):
        _find(str(path), photos)
    torch.save({**state_dict, "conv1.weight": torch.zeros(64, 1, 7, 7)}, path)
    with pytest.raises(UserError, match=r"has other shapes for conv1\.weight"):
        _find(str(path), photos)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("fc.weight", torch.zeros(10, 100), r"has other shapes for fc\.weight$"),
        ("fc.weight", torch.zeros(5120), r"has other shapes for fc\.weight, fc\.bias$"),
        ("fc.weight", torch.zeros(()), r"has other shapes for fc\.weight, fc\.bias$"),
        ("fc.weight", torch.zeros(0, 512), r"has other shapes for fc\.weight, fc\.bias$"),
        ("fc.bias", torch.zeros(9), r"has other shapes for fc\.bias$"),
        ("fc.bias", torch.zeros(10, 1), r"has other shapes for fc\.bias$"),
        (
            "fc.weight",
            torch.zeros(10, 512, dtype=torch.int8),
            r"has no floating-point numbers for fc\.weight$",
        ),
        ("conv1.weight", torch.zeros(64, 3, 7, 7, dtype=torch.uint8), r"floating-point numbers for conv1"),
        (
            "bn1.running_var",
            torch.ones(64, dtype=torch.cfloat),
            r"floating-point numbers for bn1\.running_var",
        ),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(
    name: str,
    value: Tensor,
    message: str,
    tmp_path: Path,
    state_dict: dict[str, Tensor],
    photos: list[Photo],
) -> None:
    path = tmp_path / "w.pth"
    torch.save({**state_dict, name: value}, path)
    with pytest.raises(UserError, match=rf"--weights must fit resnet18; .* {message}"):
        _find(str(path), photos)


def test_an_unknown_name_lists_the_known_ones(photos: list[Photo]) -> None:
    with pytest.raises(
        UserError, match=r"one of IMAGENET1K_V1, DEFAULT, seeded, or a file that exists; got 'V9'"
    ):
        _find("V9", photos)


def test_without_a_network_a_named_entry_is_an_error(
    photos: list[Photo], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ResNet18_Weights, "get_state_dict", _no_network)
    with pytest.raises(UserError, match=r"IMAGENET1K_V1 could not be fetched: .*no route to host"):
        _find("DEFAULT", photos)


def test_without_a_network_the_default_is_seeded_and_says_so(
    photos: list[Photo], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ResNet18_Weights, "get_state_dict", _no_network)
    weights = _find(None, photos)
    assert weights.kind == "seeded"
    assert "BN statistics calibrated on 32 crops" in weights.source
    assert "no route to host" in weights.source
    assert weights.categories is None


def test_with_a_network_the_default_is_pretrained(
    photos: list[Photo], monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = resnet18().state_dict()
    monkeypatch.setattr(ResNet18_Weights, "get_state_dict", lambda *_, **__: fetched)
    weights = _find(None, photos)
    assert weights.kind == "pretrained"
    assert weights.class_name(281) == "tabby"


def test_seeded_weights_repeat_and_leave_the_generator_alone(photos: list[Photo]) -> None:
    before = torch.random.get_rng_state()
    first, again = _find("seeded", photos), _find("seeded", photos)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(again.state_dict[name], tensor) for name, tensor in first.state_dict.items())


def test_calibration_averages_over_the_batches() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3))
    batches = [torch.randn(4, 3, 5, 5) + shift for shift in (0.0, 2.0, 4.0)]
    calibrate(model, batches)
    means = torch.stack([batch.mean(dim=(0, 2, 3)) for batch in batches]).mean(dim=0)
    torch.testing.assert_close(model[0].running_mean, means)
    assert model[0].momentum == 0.1
    assert not model.training
