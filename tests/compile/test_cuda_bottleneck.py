"""docs/bottleneck.md says what the code does."""

from __future__ import annotations

import shutil

import pytest

from tests.compile.bottleneck_table import DOCUMENT, printed, with_table


def test_the_table_is_current() -> None:
    if shutil.which("nvcc") is None:
        pytest.skip("nvcc is not on PATH")
    document = DOCUMENT.read_text()
    assert with_table(document, printed()) == document, "write it: python -m tests.compile.bottleneck_table"
