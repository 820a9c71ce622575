"""Where a model's weights come from: torchvision's enum, a file, or a seed and the photographs."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchvision.models import WeightsEnum, get_model, get_model_weights
from torchvision.transforms._presets import ImageClassification

from fusedres.cli.console import UserError, require
from fusedres.cli.crops import random_batch, resized_preset
from fusedres.cli.photos import Photo

MODELS = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "wide_resnet50_2",
    "wide_resnet101_2",
)

WEIGHTS_HELP = "DEFAULT or another of torchvision's names, a file, or seeded (default: DEFAULT, else seeded)"

#: Seconds a connection may stay silent before the pretrained weights count as out of reach.
NETWORK_TIMEOUT = 15.0

#: Crops that BN statistics are calibrated on, and how many at a time.
CALIBRATION_CROPS, CALIBRATION_BATCH = 32, 8


@dataclass(frozen=True)
class Weights:
    """A state dict and what is known of it."""

    state_dict: dict[str, Tensor]
    kind: Literal["pretrained", "file", "seeded"]
    source: str
    preset: ImageClassification
    categories: list[str] | None

    @property
    def num_classes(self) -> int:
        return int(self.state_dict["fc.weight"].shape[0])

    def class_name(self, index: int) -> str:
        """The class's name, or its number where names would mean nothing."""
        return self.categories[index] if self.categories else f"class {index}"


def find_weights(
    model: str, spec: str | None, photos: list[Photo], *, seed: int, size: int | None
) -> Weights:
    """The weights that ``--weights`` asks for.

    Args:
        model: one of :data:`MODELS`.
        spec: a name of torchvision's enum (``DEFAULT``, ``IMAGENET1K_V1``, …), ``seeded``, or a file;
            ``None`` tries ``DEFAULT`` and falls back on ``seeded`` where there is no network.
        photos: what seeded weights calibrate their BN statistics on.
        seed: of the initial weights and of the calibration's crops.
        size: the crop's side in pixels; ``None`` is what the weights were trained for.

    Raises:
        UserError: an unknown name, weights that cannot be fetched, or a file that does not hold them.
    """
    enum = get_model_weights(model)
    default = enum["DEFAULT"]
    preset = resized_preset(default.transforms(), size)
    if spec == "seeded":
        return _seeded(model, photos, preset, seed, "as asked for")
    if spec is None:
        try:
            return _pretrained(default, size)
        except UserError as error:
            return _seeded(model, photos, preset, seed, str(error))
    if spec in enum.__members__:
        return _pretrained(enum[spec], size)
    path = Path(spec)
    if not path.is_file():
        names = ", ".join([*enum.__members__, "seeded"])
        raise UserError(f"--weights must be one of {names}, or a file that exists; got {spec!r}")
    state_dict = read_state_dict(path)
    _check_fit(model, state_dict, path)
    categories = default.meta["categories"] if state_dict["fc.weight"].shape[0] == 1000 else None
    return Weights(state_dict, "file", f"file {path.name}", preset, categories)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """A state dict from ``.safetensors``, or from what ``torch.save`` wrote (tensors only: no code is run).

    A checkpoint's ``state_dict`` or ``model`` entry is taken, and DDP's ``module.`` before names is dropped.

    Raises:
        UserError: the file cannot be read or holds no state dict.
    """
    try:
        if path.suffix == ".safetensors":
            content: Any = require("safetensors.torch", f"reading {path}").load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as error:  # pickle, zip and safetensors errors share no base
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"--weights must be a file with a state dict; {path} cannot be read as one: {reason}"
        ) from error
    for entry in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(entry), Mapping):
            content = content[entry]
    if (
        not isinstance(content, Mapping)
        or not content
        or not all(isinstance(v, Tensor) for v in content.values())
    ):
        raise UserError(f"--weights must be a file with a state dict; {path} holds {_describe(content)}")
    return {str(name).removeprefix("module."): tensor for name, tensor in content.items()}


def calibrate(model: nn.Module, batches: list[Tensor]) -> None:
    """Set BN's running statistics to their average over ``batches``; leaves ``model`` in eval mode."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
    model.train()
    with torch.no_grad():
        for images in batches:
            model(images)
    model.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _pretrained(entry: WeightsEnum, size: int | None) -> Weights:
    try:
        with _socket_timeout(NETWORK_TIMEOUT):
            state_dict = entry.get_state_dict(progress=False, check_hash=True)
    except (
        OSError,
        http.client.HTTPException,
        RuntimeError,
    ) as error:  # RuntimeError: the hash does not match
        raise UserError(f"{entry} could not be fetched: {error}") from error
    preset = resized_preset(entry.transforms(), size)
    return Weights(dict(state_dict), "pretrained", f"torchvision {entry}", preset, entry.meta["categories"])


def _seeded(model: str, photos: list[Photo], preset: ImageClassification, seed: int, why: str) -> Weights:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = get_model(model, weights=None)
    crops = random_batch(photos, CALIBRATION_CROPS, preset, seed)
    calibrate(network.to(memory_format=torch.channels_last), list(torch.split(crops, CALIBRATION_BATCH)))
    source = f"seed {seed}, BN statistics calibrated on {CALIBRATION_CROPS} crops of the photographs ({why})"
    state_dict = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    return Weights(state_dict, "seeded", source, preset, None)


def _check_fit(model: str, state_dict: dict[str, Tensor], path: Path) -> None:
    with torch.device("meta"):
        expected = get_model(model, weights=None).state_dict()
    shapes = {n: tuple(t.shape) for n, t in expected.items()}
    head = state_dict.get("fc.weight")
    if head is not None and head.dim() == 2 and len(head) > 0:  # it may have been trained for other classes
        shapes["fc.weight"], shapes["fc.bias"] = (len(head), shapes["fc.weight"][1]), (len(head),)
    missing = [n for n in expected if n not in state_dict and not n.endswith("num_batches_tracked")]
    unexpected = [n for n in state_dict if n not in expected]
    wrong = [n for n, shape in shapes.items() if n in state_dict and tuple(state_dict[n].shape) != shape]
    integral = [
        n
        for n, t in expected.items()
        if n in state_dict and t.is_floating_point() and not state_dict[n].is_floating_point()
    ]
    for what, names in (
        ("lacks", missing),
        ("has unknown", unexpected),
        ("has other shapes for", wrong),
        ("has no floating-point numbers for", integral),
    ):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise UserError(f"--weights must fit {model}; {path} {what} {', '.join(names[:3])}{more}")


def _describe(content: object) -> str:
    if isinstance(content, Mapping):
        return f"a dict of {len(content)} entries that are not all tensors" if content else "an empty dict"
    return f"a {type(content).__name__}"


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    # torch.hub opens its connections with the process's default, which is to wait for ever
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
