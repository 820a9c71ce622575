"""Statistics of interleaved rounds."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.models.timing import quantile, ratio, spread


def test_quartiles_are_numpys() -> None:
    values = [3.0, 1.0, 4.0, 1.5, 9.0, 2.6]
    found = spread(values)
    assert found.median == pytest.approx(np.median(values))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(values, [0.25, 0.75])))
    assert quantile([7.0], 0.25) == 7.0


def test_a_slow_round_divides_out() -> None:
    """Everything ran three times slower in the second round; the peer is twice as slow as ours in each."""
    ours, peer = [[1.0], [3.0], [1.0]], [[2.0], [6.0], [2.0]]
    assert ratio(peer, ours).median == 2.0
    assert ratio(peer, ours).low == ratio(peer, ours).high == 2.0


def test_a_round_counts_once_however_many_calls_it_has() -> None:
    assert ratio([[2.0, 2.0, 50.0], [2.0]], [[1.0], [1.0, 1.0]]).median == 2.0


def test_unpaired_rounds_are_refused() -> None:
    with pytest.raises(ValueError, match="as many rounds as `ours`, 2; got 1"):
        ratio([[1.0]], [[1.0], [1.0]])
    with pytest.raises(ValueError, match="must not be empty"):
        spread([])
