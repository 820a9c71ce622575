"""A weight's gradient is handed to autograd in the weight's own layout, which keeps it without a copy."""

from __future__ import annotations

import pytest
import torch

from fusedres.ops._block_op import weight_gradient

LAYOUTS = (torch.contiguous_format, torch.channels_last)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("given", LAYOUTS, ids=str)
@pytest.mark.parametrize("size", [1, 3])
def test_the_layout_is_the_weights(
    size: int, given: torch.memory_format, layout: torch.memory_format
) -> None:
    w = torch.zeros(6, 8, size, size).to(memory_format=layout)
    dw = torch.randn(6, 8, size, size).to(memory_format=given)
    gradient = weight_gradient(dw, w)
    assert gradient.stride() == torch.empty_like(w).stride() and torch.equal(gradient, dw)
    same_memory = size == 1 or given == layout
    assert (gradient.data_ptr() == dw.data_ptr()) == same_memory, "copied where it need not be, or not where"
