"""From photographs to a batch: torchvision's own preprocessing, then other crops of the same pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms._presets import ImageClassification
from torchvision.transforms.functional import normalize, to_tensor

from fusedres.cli.photos import Photo


@dataclass(frozen=True)
class Batch:
    """``images`` is (N, 3, S, S) float32, normalised; image ``i`` is a crop of ``photos[i]``.

    The first crops, one a photograph as far as N goes, are the preset's centre crops; the rest are random.
    """

    images: Tensor
    photos: tuple[str, ...]


def resized_preset(preset: ImageClassification, size: int | None) -> ImageClassification:
    """``preset`` for crops of ``size`` pixels, resized before by the same factor; ``None`` keeps its own."""
    crop, resize = preset.crop_size[0], preset.resize_size[0]
    if size is None or size == crop:
        return preset
    return ImageClassification(
        crop_size=size,
        resize_size=max(size, round(resize * size / crop)),
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        interpolation=preset.interpolation,
    )


def make_batch(photos: list[Photo], count: int, preset: ImageClassification, seed: int) -> Batch:
    """``count`` crops that go through ``photos`` in turn; the same seed gives the same crops."""
    if not photos:
        raise ValueError("make_batch: photos must not be empty; got none")
    generator = torch.Generator().manual_seed(seed)
    images = []
    for index in range(count):
        photo = photos[index % len(photos)]
        if index < len(photos):
            images.append(preset(photo.image))
        else:
            images.append(_random_crop(photo, preset, generator))
    return Batch(torch.stack(images), tuple(photos[i % len(photos)].name for i in range(count)))


def random_batch(photos: list[Photo], count: int, preset: ImageClassification, seed: int) -> Tensor:
    """``count`` random crops only, (N, 3, S, S) float32: what BN statistics are calibrated on."""
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([_random_crop(photos[i % len(photos)], preset, generator) for i in range(count)])


def displayable(image: Tensor, preset: ImageClassification) -> Tensor:
    """A normalised (3, S, S) crop as (S, S, 3) in [0, 1], to be shown."""
    mean, std = torch.tensor(preset.mean), torch.tensor(preset.std)
    return (image.cpu().permute(1, 2, 0) * std + mean).clamp(0, 1)


def _random_crop(photo: Photo, preset: ImageClassification, generator: torch.Generator) -> Tensor:
    """A square of 25 to 100% of the shorter side's, anywhere, mirrored half of the time."""
    width, height = photo.image.size
    area, across, down, mirror = torch.rand(4, generator=generator).tolist()
    side = max(1, int(min(width, height) * math.sqrt(0.25 + 0.75 * area)))
    left, top = int(across * (width - side)), int(down * (height - side))
    size = preset.crop_size[0]
    box = (left, top, left + side, top + side)
    image = photo.image.resize((size, size), Image.Resampling.BILINEAR, box)
    if mirror < 0.5:
        image = ImageOps.mirror(image)
    return normalize(to_tensor(image), mean=list(preset.mean), std=list(preset.std))
