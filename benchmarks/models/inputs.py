"""What every worker of a cell is fed: the same photographs and the same seeded, calibrated weights."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.models import get_model_weights
from torchvision.transforms._presets import ImageClassification

from fusedres.cli.crops import random_batch
from fusedres.cli.photos import shipped_photos
from fusedres.cli.weights import find_weights

SEED = 0
SIZE = 224


def images(model: str, batch: int) -> Tensor:
    """(batch, 3, 224, 224) fp32, contiguous: crops of the photographs that the test extra installs."""
    preset: ImageClassification = get_model_weights(model)["DEFAULT"].transforms()
    return random_batch(shipped_photos(), batch, preset, SEED)


def labels(batch: int) -> Tensor:
    return torch.randint(1000, (batch,), generator=torch.Generator().manual_seed(SEED))


def state(model: str) -> dict[str, Tensor]:
    """torchvision's initial weights with BatchNorm statistics calibrated on the photographs.

    Fresh statistics (mean 0, variance 1) would let activations grow through 16 residual blocks to sizes
    where bf16's error says nothing; those of real images keep every layer at a trained network's scale.
    """
    return find_weights(model, "seeded", shipped_photos(), seed=SEED, size=SIZE).state_dict
