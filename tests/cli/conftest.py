"""Photographs and weights small enough to try the command line in seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchvision.models import resnet18
from typer.testing import CliRunner, Result

from fusedres.cli.app import app
from fusedres.cli.photos import Photo, shipped_photos

Invoke = Callable[..., Result]


@pytest.fixture(scope="session")
def photos() -> list[Photo]:
    return shipped_photos()


@pytest.fixture(scope="session")
def state_dict() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return resnet18(num_classes=10).state_dict()


@pytest.fixture
def weights_file(tmp_path: Path, state_dict: dict[str, Tensor]) -> Path:
    path = tmp_path / "weights.pth"
    torch.save(state_dict, path)
    return path


@pytest.fixture
def photo_files(tmp_path: Path, photos: list[Photo]) -> list[Path]:
    folder = tmp_path / "photographs"
    folder.mkdir()
    paths = [folder / f"{photo.name}.png" for photo in photos[:2]]
    for path, photo in zip(paths, photos, strict=False):
        photo.image.resize((96, 64)).save(path)
    return paths


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Run the command line in an empty folder, on a terminal wide enough that no cell is folded."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "250")
    runner = CliRunner()
    return lambda *arguments: runner.invoke(app, [str(argument) for argument in arguments])
