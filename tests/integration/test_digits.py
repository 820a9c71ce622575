"""Real training on real images: scikit-learn's handwritten digits, ResNet-18, fused beside eager."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import torchvision.models
from torch import Tensor, nn

import fusedres

datasets = pytest.importorskip("sklearn.datasets")

EPOCHS, BATCH, TEST_IMAGES = 4, 64, 450


def digits() -> tuple[Tensor, Tensor]:
    """1797 photographs of 8×8, enlarged to 3×24×24, in a fixed random order."""
    data = datasets.load_digits()
    images = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16 - 0.3
    images = F.interpolate(images, size=24, mode="bilinear").expand(-1, 3, -1, -1)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return images[order].contiguous(memory_format=torch.channels_last), torch.tensor(data.target)[order]


def train(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[list[float], float]:
    """The loss of every step, and the accuracy on images that were not trained on."""
    held_out, held_out_labels = images[:TEST_IMAGES], labels[:TEST_IMAGES]
    images, labels = images[TEST_IMAGES:], labels[TEST_IMAGES:]
    optimiser = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-4)
    steps = EPOCHS * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.02, total_steps=steps)
    shuffle = torch.Generator().manual_seed(1)
    losses = []
    model.train()
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(images), generator=shuffle).split(BATCH)[: len(images) // BATCH]:
            loss = F.cross_entropy(model(images[batch]), labels[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
    model.eval()
    with torch.no_grad():
        right = model(held_out).argmax(1) == held_out_labels
    return losses, right.float().mean().item()


@pytest.mark.slow
def test_fused_and_eager_learn_alike() -> None:
    images, labels = digits()
    torch.manual_seed(0)
    eager = train(torchvision.models.resnet18(num_classes=10), images, labels)
    torch.manual_seed(0)
    fused = train(fusedres.resnet18(num_classes=10), images, labels)
    for name, (losses, accuracy) in {"eager": eager, "fused": fused}.items():
        assert accuracy > 0.97, f"{name}: {accuracy:.1%} of the held-out digits are right"
        assert all(torch.tensor(losses).isfinite())
    # A held-out digit is 0.22%. After the first step the runs part: a rounding error that turns one ReLU
    # over moves the next loss by 1e-4, and each step multiplies what is there by about 50 (plain PyTorch in
    # NCHW and in channels_last part as fast). So single losses agree at first, and means of ten later on.
    assert abs(eager[1] - fused[1]) < 0.02
    torch.testing.assert_close(fused[0][:2], eager[0][:2], rtol=1e-3, atol=0)
    curves = torch.tensor([eager[0], fused[0]]).unfold(1, 10, 10).mean(2)
    assert (curves[0] - curves[1]).abs().max() < 0.2, f"losses in tens of steps:\n{curves}"
