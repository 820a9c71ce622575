"""The convolutions through torch's own, in 16 bit: what compute capability 7.5 runs.

Elsewhere only exact fp32 and what ours do not serve come that way, so the ops are led to it by hand.
"""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch

from fusedres.backends.cuda import library
from fusedres.ops import _registry
from fusedres.ops._dispatch import BACKENDS
from tests.conftest import device_of
from tests.ops._rules import Case, KernelRules
from tests.ops.test_bottleneck_infer import TestBottleneckInfer
from tests.ops.test_conv_affine_act import TestConvAffineAct
from tests.ops.test_conv_dgrad import TestConvDgrad
from tests.ops.test_conv_stats import TestConvStats
from tests.ops.test_conv_wgrad import TestConvWgrad

pytestmark = pytest.mark.gpu

RULES: dict[str, KernelRules] = {
    rules.op: rules()
    for rules in (TestConvAffineAct, TestConvStats, TestConvDgrad, TestConvWgrad, TestBottleneckInfer)
}
# What pytest would collect here once more.
del TestConvAffineAct, TestConvStats, TestConvDgrad, TestConvWgrad, TestBottleneckInfer

DTYPES = (torch.bfloat16, torch.float16)


def cases() -> list[object]:
    """Every op in bf16 on an odd shape with all that it can be given; the rest is slow when emulated."""
    found = []
    for op, rules in RULES.items():
        for case in rules.cases(rules.few_shapes):
            for dtype in DTYPES:
                quick = case == rules.odd() and dtype == torch.bfloat16
                name = f"{op}-{case}-{str(dtype).split('.')[1]}"
                marks = () if quick else pytest.mark.slow
                found.append(pytest.param(op, case, dtype, id=name, marks=marks))
    return found


def through_the_library(backend: str, name: str) -> Any:
    if name in RULES:
        return getattr(torch.ops.fusedres_cuda_library, name).default
    return _registry.kernel(backend, name)


@pytest.mark.parametrize(("op", "case", "dtype"), cases())
def test_numbers(op: str, case: Case, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    device, rules = device_of("cuda"), RULES[op]
    if reason := BACKENDS["cuda"].refusal(device, dtype):
        pytest.skip(f"back-end 'cuda': {reason}")
    inputs = rules.made(case, dtype, device)
    with monkeypatch.context() as patched:
        for module in (sys.modules[f"fusedres.ops.{op}"], library):
            patched.setattr(module, "kernel", through_the_library)
        ours = rules.call(inputs, "cuda")
    if case.shape.x[0] == 0:
        assert all(bool((out == 0).all()) for out in ours)
    else:
        rules.compare(ours, inputs, f"{op} {case} by the library")
