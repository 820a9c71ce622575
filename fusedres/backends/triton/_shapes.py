"""How pointwise and reduction kernels cut an activation map: rows are pixels, columns are channels."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from fusedres.backends.triton._device import cdiv, device_facts, power_of_two

#: Values a program of four warps holds at once: 16 a thread, two 16-byte loads of a 2-byte dtype.
TILE_VALUES = 2048

#: Widest tile: 256 channels of 2 bytes are four 128-byte lines.
TILE_CHANNELS = 256

#: Programs a processor gets in a reduction: enough to hide latency, few enough to keep partials small.
PROGRAMS_A_PROCESSOR = 8


class MapTile(NamedTuple):
    """The constants of a kernel over a (pixels, channels) map."""

    pixels: int
    channels: int
    BM: int
    BC: int

    @property
    def column_tiles(self) -> int:
        return cdiv(self.channels, self.BC)

    @property
    def row_tiles(self) -> int:
        return cdiv(self.pixels, self.BM)

    def iterations(self, like: Tensor) -> int:
        """Row tiles a program of a reduction walks over."""
        programs = PROGRAMS_A_PROCESSOR * device_facts(like.device).processors
        return max(1, cdiv(self.row_tiles * self.column_tiles, programs))


def map_tile(x: Tensor, values: int = TILE_VALUES) -> MapTile:
    """The cut of ``x`` (N, C, H, W), channels_last."""
    n, c, h, w = x.shape
    columns = min(TILE_CHANNELS, power_of_two(c))
    return MapTile(n * h * w, c, max(1, values // columns), columns)
