"""Few channels: a filter row's taps are neighbouring pixels, whose values lie one behind the other: a run."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from fusedres.ops._shapes import Geometry

#: Groups with fewer channels than this reduce over taps × channels as one index, or over runs.
FEW_CHANNELS = 16

#: Bytes that a thread loads at once, at most.
WORD_BYTES = 16


class Run(NamedTuple):
    """A filter row's values as words of ``word`` values each: the first ``lead`` are none of it, the last
    of its ``size`` ends a word."""

    word: int
    lead: int
    size: int


def run_of(x: Tensor, taps: int, g: Geometry) -> Run | None:
    """How a row of ``taps`` lies in ``x`` (N, C, H, W), channels_last.

    None where it is no run (groups, dilation, rows of one pixel), and with channels enough to fill a block
    by themselves. Words are such that those of every pixel's runs, and of the rows of ``x``, begin and end
    with a word.
    """
    c = x.shape[1]
    known = isinstance(x.shape[3], int)
    if c >= FEW_CHANNELS or taps == 1 or g.groups > 1 or g.dilation[1] > 1 or (known and x.shape[3] == 1):
        return None
    width = x.shape[3] if known else 1  # of a symbolic one no multiple is known
    ends = width * c, g.stride[1] * c, (taps - g.padding[1]) * c
    word = math.gcd(*ends, WORD_BYTES // x.element_size())
    lead = -g.padding[1] * c % word
    return Run(word, lead, lead + taps * c)
