"""Every set of arguments on channels read 16 bytes at a time; the rules' odd shape goes value by value."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fusedres.ops._dispatch import BACKENDS
from tests.conftest import device_of
from tests.ops._rules import Case, KernelRules
from tests.ops.shapes import MAP_SHAPES
from tests.ops.test_affine_add_act import TestAffineAddAct as JoinRules
from tests.ops.test_bn_act_bwd_apply import TestBnActBwdApply as ApplyRules
from tests.ops.test_bn_act_bwd_reduce import TestBnActBwdReduce as ReduceRules

pytestmark = pytest.mark.gpu

WHOLE = [shape for shape in MAP_SHAPES if shape.name in ("even", "many_tiles")]
CASES: list[Any] = [
    pytest.param(
        rules(), Case(shape, variant), dtype, id=f"{rules.op}-{shape}-{variant}-{str(dtype)[6:]}", marks=marks
    )
    for rules in (JoinRules, ApplyRules, ReduceRules)
    for variant in rules.variants
    for shape in WHOLE
    for dtype in (torch.bfloat16, torch.float16, torch.float32)
    # Emulated, a case takes seconds: by default one shape in one dtype.
    for marks in [() if (shape.name, dtype) == ("even", torch.bfloat16) else pytest.mark.slow]
]


@pytest.mark.parametrize("rules, case, dtype", CASES)
def test_numbers(rules: KernelRules, case: Case, dtype: torch.dtype) -> None:
    device = device_of("cuda")
    if reason := BACKENDS["cuda"].refusal(device, dtype):
        pytest.skip(f"back-end 'cuda': {reason}")
    inputs = rules.made(case, dtype, device)
    rules.compare(rules.call(inputs, "cuda"), inputs, f"{rules.op} {case}")
