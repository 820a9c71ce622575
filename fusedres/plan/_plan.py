"""A plan: what was measured on one device, and how it is written down."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from fusedres._settings import BACKEND, COMPOSITION
from fusedres._version import __version__
from fusedres.ops._planned import Choice, Convolution
from fusedres.ops._registry import KERNEL_OPS
from fusedres.plan._device import identity

#: Raised when a field changes its meaning.
FORMAT = 2

Tile = tuple[int, ...]
TileKey = tuple[object, ...]


@dataclass(frozen=True)
class Entry:
    """What one block runs. ``seconds`` are the candidates' medians; ``measured`` is UTC, in ISO 8601."""

    composition: str
    backend: str
    why: str
    measured: str
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def choice(self) -> Choice:
        return Choice(self.composition, self.backend)


@dataclass(frozen=True)
class Algorithm:
    """What one convolution of a back-end with several algorithms runs."""

    algorithm: str
    why: str
    measured: str


@dataclass(frozen=True)
class Plan:
    """Everything measured on one device with one torch and one fusedres.

    ``blocks`` are keyed by ``str()`` of a :class:`Block`.
    """

    device: str
    torch: str
    fusedres: str
    blocks: dict[str, Entry] = field(default_factory=dict)
    convolutions: dict[Convolution, Algorithm] = field(default_factory=dict)
    tiles: dict[TileKey, Tile] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.blocks) + len(self.convolutions) + len(self.tiles)

    @property
    def origin(self) -> tuple[str, str, str]:
        """Device, torch's version and fusedres's: a plan holds for no others."""
        return self.device, self.torch, self.fusedres

    def merged(self, other: Plan) -> Plan:
        """Both plans' entries; of two for one key the later measured, of two tiles the other's.

        Raises:
            ValueError: they were measured on different devices or versions.
        """
        if self.origin != other.origin:
            raise ValueError(f"plans: must share device and versions; got {self.origin} and {other.origin}")
        blocks, convolutions = dict(self.blocks), dict(self.convolutions)
        for name, entry in other.blocks.items():
            if name not in blocks or blocks[name].measured <= entry.measured:
                blocks[name] = entry
        for convolution, algorithm in other.convolutions.items():
            if convolution not in convolutions or convolutions[convolution].measured <= algorithm.measured:
                convolutions[convolution] = algorithm
        return Plan(*self.origin, blocks, convolutions, {**self.tiles, **other.tiles})

    def to_json(self) -> str:
        return json.dumps(
            {
                "format": FORMAT,
                "device": self.device,
                "torch": self.torch,
                "fusedres": self.fusedres,
                "blocks": {name: asdict(entry) for name, entry in self.blocks.items()},
                "convolutions": [[list(key), asdict(value)] for key, value in self.convolutions.items()],
                "tiles": [[key, tile] for key, tile in self.tiles.items()],
            },
            indent=1,
        )


def empty(device: torch.device) -> Plan:
    """A plan of this device and these versions, with nothing in it."""
    return Plan(identity(device), torch.__version__, __version__)


def from_json(text: str) -> Plan:
    """The plan that :meth:`Plan.to_json` wrote.

    Raises:
        ValueError: the text is anything else, or names what this version does not know.
    """
    try:
        content = json.loads(text)
        if content["format"] != FORMAT:
            raise ValueError(f"its format must be {FORMAT}; got {content['format']!r}")
        plan = Plan(
            _text(content["device"]),
            _text(content["torch"]),
            _text(content["fusedres"]),
            {_text(name): _entry(entry) for name, entry in content["blocks"].items()},
            {_convolution(key): _algorithm(value) for key, value in content["convolutions"]},
            {_frozen(key): _tile(tile) for key, tile in content["tiles"]},
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"it lacks a part or has one of another form ({error!r})") from None
    return plan


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected a string, got {value!r}")
    return value


def _entry(value: dict[str, Any]) -> Entry:
    entry = Entry(**{**value, "seconds": {_text(k): float(v) for k, v in value["seconds"].items()}})
    for text in (entry.composition, entry.backend, entry.why, entry.measured):
        _text(text)
    if entry.composition not in COMPOSITION.choices:
        raise ValueError(f"a composition must be one of {COMPOSITION.choices}; got {entry.composition!r}")
    first, *others = entry.backend.split(",")
    named = [("", first), *((op, name) for op, _, name in (other.partition("=") for other in others))]
    for op, name in named:
        if name not in BACKEND.choices or (op and op not in KERNEL_OPS):
            raise ValueError(f"a back-end must be one of {BACKEND.choices}; got {entry.backend!r}")
    return entry


def _algorithm(value: dict[str, Any]) -> Algorithm:
    return Algorithm(_text(value["algorithm"]), _text(value["why"]), _text(value["measured"]))


def _convolution(key: list[Any]) -> Convolution:
    values = _frozen(key)
    if len(values) != len(Convolution._fields):
        raise ValueError(f"a convolution must have {len(Convolution._fields)} parts; got {key!r}")
    return Convolution._make(values)


def _frozen(value: Any) -> Any:
    return tuple(_frozen(v) for v in value) if isinstance(value, list) else value


def _tile(value: list[Any]) -> Tile:
    if len(value) != 5 or not all(isinstance(number, int) and number > 0 for number in value):
        raise ValueError(f"a tile must have five positive numbers; got {value!r}")
    return tuple(value)
