"""Photographs and the batches made of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.models import ResNet50_Weights

from fusedres.cli.console import UserError
from fusedres.cli.crops import displayable, make_batch, random_batch, resized_preset
from fusedres.cli.photos import SHIPPED, Photo, read_photo, read_photos

PRESET = resized_preset(ResNet50_Weights.DEFAULT.transforms(), 64)


def test_every_listed_photograph_is_in_the_wheels(photos: list[Photo]) -> None:
    assert [photo.name for photo in photos] == [Path(file).stem for _, file in SHIPPED]
    assert all(photo.image.mode == "RGB" for photo in photos)


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"image .*broken\.png cannot be read: "):
        read_photo(path)


def test_a_truncated_image_is_named(tmp_path: Path, photo_files: list[Path]) -> None:
    path = tmp_path / "half.png"
    path.write_bytes(photo_files[0].read_bytes()[:2000])
    with pytest.raises(UserError, match=r"half\.png cannot be read"):
        read_photo(path)


def test_the_rest_go_on(tmp_path: Path, photo_files: list[Path]) -> None:
    missing = tmp_path / "missing.jpg"
    found, failures = read_photos([photo_files[0], missing, photo_files[1]])
    assert [photo.name for photo in found] == [path.stem for path in photo_files]
    assert len(failures) == 1 and "missing.jpg" in failures[0]


def test_a_folder_stands_for_its_images(photo_files: list[Path]) -> None:
    folder = photo_files[0].parent
    (folder / "notes.txt").write_text("no image")
    found, failures = read_photos([folder])
    assert sorted(photo.name for photo in found) == sorted(path.stem for path in photo_files)
    assert failures == []


def test_grey_and_transparent_images_become_rgb(tmp_path: Path) -> None:
    for mode in ("L", "RGBA", "P"):
        path = tmp_path / f"{mode}.png"
        Image.new(mode, (9, 7)).save(path)
        assert read_photo(path).image.mode == "RGB"


def test_first_crops_are_torchvisions_own(photos: list[Photo]) -> None:
    batch = make_batch(photos[:2], 3, PRESET, seed=0)
    assert batch.images.shape == (3, 3, 64, 64)
    assert batch.photos == (photos[0].name, photos[1].name, photos[0].name)
    torch.testing.assert_close(batch.images[1], PRESET(photos[1].image), rtol=0, atol=0)
    assert not torch.equal(batch.images[2], batch.images[0])


def test_the_same_seed_gives_the_same_crops(photos: list[Photo]) -> None:
    first, again, other = (random_batch(photos[:1], 4, PRESET, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_no_photographs_is_an_error() -> None:
    with pytest.raises(ValueError, match="photos must not be empty"):
        make_batch([], 4, PRESET, seed=0)


def test_a_tiny_photograph_still_gives_crops() -> None:
    assert random_batch([Photo("dot", Image.new("RGB", (1, 1)))], 2, PRESET, 0).shape == (2, 3, 64, 64)


def test_preset_keeps_its_proportions() -> None:
    own = ResNet50_Weights.DEFAULT.transforms()
    assert resized_preset(own, None) is own
    assert resized_preset(own, 224) is own
    half = resized_preset(own, 112)
    assert (half.crop_size, half.resize_size) == ([112], [116])


def test_displayable_undoes_the_normalisation(photos: list[Photo]) -> None:
    shown = displayable(PRESET(photos[0].image), PRESET)
    assert shown.shape == (64, 64, 3)
    assert float(shown.min()) >= 0 and float(shown.max()) <= 1
