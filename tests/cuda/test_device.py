"""Which GPUs a build serves, told from its list of architectures."""

from __future__ import annotations

import pytest

from fusedres.backends.cuda._device import serves

DEFAULT = "8.0+PTX;9.0;10.0;12.0"


@pytest.mark.parametrize(
    ("archs", "capability", "served"),
    [
        (DEFAULT, (8, 0), True),
        (DEFAULT, (8, 9), True),  # machine code of 8.0
        (DEFAULT, (9, 0), True),
        (DEFAULT, (11, 0), True),  # PTX of 8.0
        (DEFAULT, (7, 5), False),
        ("8.0", (9, 0), False),  # machine code stays within its major
        ("8.6", (8, 0), False),
        ("9.0a", (9, 0), True),
        ("9.0a", (9, 3), False),
        ("7.5 8.0+PTX", (7, 5), True),
    ],
)
def test_list_of_architectures(archs: str, capability: tuple[int, int], served: bool) -> None:
    assert serves(archs, capability) is served
