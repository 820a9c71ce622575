"""The rules every kernel op is held to, once; each test_<op>.py says how to make the op's inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import pytest
import torch
from torch import Tensor

import fusedres.ops
from fusedres.ops._dispatch import BACKENDS
from tests import baselines
from tests._parity import assert_same_arithmetic, assert_same_bits, assert_within_two_x, largest
from tests._probe import KernelCalls, poisoned_memory, scattered, threads
from tests.conftest import device_of

Inputs = dict[str, Any]
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class Bad(NamedTuple):
    """A call that must be refused: what is changed in good inputs, and the error that names it."""

    name: str
    change: Callable[[Inputs], Inputs]
    error: type[Exception]
    match: str


class Case(NamedTuple):
    shape: Any
    variant: str

    def __str__(self) -> str:
        return f"{self.shape}-{self.variant}"


class KernelRules:
    """Subclassed once an op. ``inputs`` makes float64 values; the rules cast and place them."""

    op: ClassVar[str]
    outputs: ClassVar[tuple[str, ...]]
    shapes: ClassVar[Sequence[Any]]
    few_shapes: ClassVar[Sequence[Any]]
    #: Which optional arguments are given; the first is the one every shape is tried with.
    variants: ClassVar[tuple[str, ...]] = ("full",)
    #: Arguments in the accumulation dtype; other floating tensors are in the activations' dtype.
    vectors: ClassVar[frozenset[str]] = frozenset()
    bad: ClassVar[Sequence[Bad]] = ()

    def inputs(self, shape: Any, variant: str) -> Inputs:
        raise NotImplementedError

    def observe(self, outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """What is compared of the op's outputs; per-tile statistics are merged here."""
        return outputs

    # How a call is made

    def made(self, case: Case, dtype: torch.dtype, device: str | torch.device = "cpu") -> Inputs:
        """The case's inputs, rounded to ``dtype`` (per-channel vectors to fp32)."""
        torch.manual_seed(0)
        wide = torch.float64 if dtype == torch.float64 else torch.float32

        def place(name: str, value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            if value.is_floating_point():
                value = value.to(wide if name in self.vectors else dtype)
            value = value.to(device)
            return value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value

        return {name: place(name, value) for name, value in self.inputs(case.shape, case.variant).items()}

    def call(self, inputs: Inputs, backend: str | None) -> tuple[Tensor, ...]:
        out = getattr(fusedres.ops, self.op)(**inputs, backend=backend)
        return out if isinstance(out, tuple) else (out,)

    def plain(self, inputs: Inputs) -> tuple[Tensor, ...]:
        out = getattr(baselines, self.op)(**inputs)
        return out if isinstance(out, tuple) else (out,)

    def compare(self, outputs: tuple[Tensor, ...], inputs: Inputs, what: str) -> None:
        """The 2× rule for what came of ``inputs``; integers must be plain PyTorch's own."""
        exact = {
            name: value.double() if isinstance(value, Tensor) and value.is_floating_point() else value
            for name, value in inputs.items()
        }
        ours, ref, plain = (
            self.observe(outputs),
            self.observe(self.call(exact, "reference")),
            self.plain(inputs),
        )
        for name, o, r, p in zip(self.outputs, ours, ref, plain, strict=True):
            if o.is_floating_point():
                assert_within_two_x(o, r, p, f"{what} {name}", self.slack(name, o, r))
            else:
                assert_same_bits(o, p, f"{what} {name}")

    def slack(self, name: str, ours: Tensor, ref: Tensor) -> float:
        """What an output's error may be beyond the 2× rule, derived where it is not 0."""
        return 0.0

    def odd(self) -> Case:
        return Case(next(s for s in self.shapes if s.name == "odd"), self.variants[0])

    @classmethod
    def cases(cls, shapes: Sequence[Any]) -> list[Case]:
        odd = next(s for s in cls.shapes if s.name == "odd")
        every_shape = [Case(shape, cls.variants[0]) for shape in shapes]
        return every_shape + [Case(odd, variant) for variant in cls.variants[1:]]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "case" in metafunc.fixturenames:
            metafunc.parametrize("case", self.cases(self.shapes), ids=str)
        if "few_case" in metafunc.fixturenames:
            metafunc.parametrize("few_case", self.cases(self.few_shapes), ids=str)
        if "layout_case" in metafunc.fixturenames:
            shapes = [s for s in self.few_shapes if s.name in ("odd", "one_channel")]
            metafunc.parametrize("layout_case", self.cases(shapes), ids=str)
        if "bad_input" in metafunc.fixturenames:
            metafunc.parametrize("bad_input", self.bad, ids=[b.name for b in self.bad])

    # The rules

    @pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).split(".")[1])
    def test_numbers(self, case: Case, dtype: torch.dtype, backend: str) -> None:
        """The 2× rule, for every output."""
        device = device_of(backend)
        if reason := BACKENDS[backend].refusal(device, dtype):
            pytest.skip(reason)
        inputs = self.made(case, dtype, device)
        ours = self.call(inputs, backend)
        if case.shape.x[0] == 0:
            assert all(bool((out == 0).all()) for out in ours), "nothing comes of an empty batch but zeros"
        else:
            self.compare(ours, inputs, f"{self.op} {case}")

    def test_reference_is_plain_pytorch_in_float64(self, case: Case) -> None:
        if case.shape.x[0] == 0:
            pytest.skip("PyTorch's statistics of nothing are NaN")
        inputs = self.made(case, torch.float64)
        ours, plain = self.observe(self.call(inputs, "reference")), self.plain(inputs)
        for name, o, p in zip(self.outputs, ours, plain, strict=True):
            compare = assert_same_arithmetic if o.is_floating_point() else assert_same_bits
            compare(o, p, f"{self.op} {case} {name}")

    def test_opcheck(self, layout_case: Case, backend: str, device: torch.device) -> None:
        """Schema, shape function and dispatch of the kernel op, on what its wrapper hands it."""
        with KernelCalls() as kernels:
            self.call(self.made(layout_case, torch.float32, device), backend)
        ((func, args),) = kernels.calls
        assert func.namespace == f"fusedres_{backend}"
        torch.library.opcheck(func, args)

    def test_compiles_without_a_break(self, backend: str, device: torch.device) -> None:
        inputs = self.made(self.odd(), torch.float32, device)
        torch._dynamo.reset()
        compiled = torch.compile(lambda given: self.call(given, backend), fullgraph=True, backend="aot_eager")
        ours, eager = compiled(dict(inputs)), self.call(inputs, backend)
        for name, o, e in zip(self.outputs, self.observe(ours), self.observe(eager), strict=True):
            assert_same_bits(o, e, f"{self.op} compiled {name}")

    @pytest.mark.parametrize("layout", ["nchw", "scattered"])
    def test_any_strides(self, layout: str, few_case: Case, backend: str, device: torch.device) -> None:
        """The 2× rule, not the same bits: a library may choose another algorithm for other strides."""
        inputs = self.made(few_case, torch.float32, device)
        other = dict(inputs)
        for name, value in inputs.items():
            if isinstance(value, Tensor):
                other[name] = scattered(value) if layout == "scattered" else value.contiguous()
        self.compare(self.call(other, backend), inputs, f"{self.op} {few_case} {layout}")

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
    def test_reads_and_leaves_no_uninitialised_memory(
        self, case: Case, dtype: torch.dtype, backend: str, device: torch.device
    ) -> None:
        inputs = self.made(case, dtype, device)
        clean = self.call(inputs, backend)
        with poisoned_memory():
            poisoned = self.call(inputs, backend)
        for i, (o, e) in enumerate(zip(poisoned, clean, strict=True)):
            assert_same_bits(o, e, f"{self.op} {case} output {i} in poisoned memory")

    def test_same_bits_every_time(self, few_case: Case, backend: str, device: torch.device) -> None:
        inputs = self.made(few_case, torch.float32, device)
        with threads(2):
            first = self.call(inputs, backend)
            for _ in range(3):
                for i, (o, e) in enumerate(zip(self.call(inputs, backend), first, strict=True)):
                    assert_same_bits(o, e, f"{self.op} {few_case} output {i} on another run")

    def test_outputs_are_fresh(self, few_case: Case, backend: str, device: torch.device) -> None:
        """No output aliases an input or another output: the schema promises it."""
        inputs = self.made(few_case, torch.float32, device)
        tensors = [v for v in inputs.values() if isinstance(v, Tensor)] + list(self.call(inputs, backend))
        pointers = [t.untyped_storage().data_ptr() for t in tensors if t.numel()]
        assert len(set(pointers)) == len(pointers)

    def test_vectors_in_the_activations_dtype(self, backend: str, device: torch.device) -> None:
        """Per-channel vectors may be bf16 as well; they are read as fp32."""
        inputs = self.made(self.odd(), torch.bfloat16, device)
        narrow = {k: v.bfloat16() if k in self.vectors and v is not None else v for k, v in inputs.items()}
        widened = {k: v.float() if k in self.vectors and v is not None else v for k, v in narrow.items()}
        for i, (o, e) in enumerate(zip(self.call(narrow, backend), self.call(widened, backend), strict=True)):
            assert_same_bits(o, e, f"{self.op} output {i} of bf16 vectors")

    def test_refuses_gradients_by_name(self, backend: str, device: torch.device) -> None:
        inputs = self.made(self.odd(), torch.float32, device)
        first = next(k for k, v in inputs.items() if isinstance(v, Tensor) and v.is_floating_point())
        inputs[first].requires_grad_()
        with pytest.raises(
            RuntimeError, match=f"fusedres_{backend}::{self.op} is a kernel and has no gradient"
        ):
            self.call(inputs, backend)
        with torch.no_grad():
            assert not any(out.requires_grad for out in self.call(inputs, backend))

    def test_bad_input(self, bad_input: Bad) -> None:
        inputs = self.made(self.odd(), torch.float32)
        with pytest.raises(bad_input.error, match=bad_input.match):
            self.call({**inputs, **bad_input.change(inputs)}, "reference")


def added(sums: Tensor) -> Tensor:
    """(2, C) of (2 T, C), the parts' sums added exactly; empty stays empty."""
    if sums.dim() == 1:
        return sums
    return sums.double().view(-1, 2, sums.shape[1]).sum(0).to(sums.dtype)


def merged(count: Tensor, mean: Tensor, m2: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of all tiles together: exact Chan in float64, one rounding."""
    n, weights = count.double().sum(), count.double()[:, None]
    mu = (weights * mean.double()).sum(0) / n
    var = (m2.double() + weights * (mean.double() - mu).square()).sum(0) / n
    return mu.to(mean.dtype), var.to(mean.dtype)


def slack_of_merged(name: str, ours: Tensor, ref: Tensor) -> float:
    """A second eps for a variance that Chan's formula merged in fp32.

    The stand-in device's yardstick is the host's, which sums variances of fp32 in fp64 and rounds once: the
    rule then allows little more than its eps. A merge rounds M2 twice, each by eps/2 at most, eps/√12 rms.
    Errors of parts are independent, so those of a tree's levels halve in variance from level to level:
    together √(2 + 1 + 1/2 + …) = 2 roundings, 0.58 eps rms. Two eps are 3.5 of these.
    """
    return torch.finfo(ours.dtype).eps * largest(ref) if name == "var" and ours.is_cuda else 0.0
