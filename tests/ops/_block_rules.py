"""The rules every block function (conv_bn_act, basic_block, bottleneck, stem) is held to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import fusedres
from fusedres.plan import Choice
from tests._parity import assert_same_bits, assert_within_two_x
from tests._probe import KernelCalls, poisoned_memory, saved_for_backward, scattered
from tests.ops._block_case import COMPOSITION, FEW_MODES, TRAINING
from tests.ops._block_numbers import BlockNumbers
from tests.ops._rules import Bad
from tests.ops._samples import Block, Sample, gradient_for, step


def bad_wishes(op: str) -> tuple[Bad, ...]:
    """``composition`` and ``plan`` of a block that takes them."""
    return (
        *(
            Bad(
                f"composition_{value!r}",
                lambda i, value=value: {"composition": value},
                ValueError,
                rf"{op}: `composition`: must be one of 'auto', 'plain', .*; got {value!r}$",
            )
            for value in ("zzz", "", 3)
        ),
        Bad("plan", lambda i: {"plan": "zzz"}, TypeError, f"{op}: `plan` must be a Choice; got str"),
        Bad(
            "plan's composition",
            lambda i: {"plan": Choice("zzz")},
            ValueError,
            f"{op}: `plan.composition`: must be one of .*'stats'.*; got 'zzz'",
        ),
        Bad(
            "plan's back-end",
            lambda i: {"plan": Choice("stats", "cpu,conv_wgrad=zzz")},
            ValueError,
            f"{op}: `plan.backend`: must be one of .*'cpu'.*; got 'zzz'",
        ),
    )


def bad_conv_bn(op: str, argument: str) -> tuple[Bad, ...]:
    """An argument that is no ConvBN."""
    return tuple(
        Bad(
            f"{argument}_{kind}",
            lambda i, value=value: {argument: value},
            TypeError,
            rf"{op}: `{argument}` must be a ConvBN; got {kind}",
        )
        for value, kind in ((torch.ones(3), "Tensor"), (3, "int"), ((), "tuple"))
    )


def bad_layer(op: str, argument: str, prefix: str) -> tuple[Bad, ...]:
    """Every part of a ConvBN, wrong by its type or dtype; messages put ``prefix`` before the part's name."""
    tensor, number, count = "must be a tensor; got", "must be a number; got", "must be an int64 scalar tensor"
    dtype = r"must be torch.float32 or have the dtype of `x`, torch.\w+; got"
    wrong: tuple[tuple[str, Any, str], ...] = (
        ("weight", lambda layer: None, f"{tensor} NoneType"),
        ("weight", lambda layer: 3, f"{tensor} int"),
        ("bn_weight", lambda layer: [1.0], f"{tensor} list"),
        ("bn_bias", lambda layer: layer.bn_bias.half(), f"{dtype} torch.float16"),
        ("running_mean", lambda layer: "a", f"{tensor} str"),
        ("running_var", lambda layer: layer.running_var.double(), f"{dtype} torch.float64"),
        ("num_batches_tracked", lambda layer: 3, f"{tensor} int"),
        (
            "num_batches_tracked",
            lambda layer: torch.tensor(0.0),
            rf"{count}; got torch.float32 of shape \(\)",
        ),
        ("num_batches_tracked", lambda layer: torch.ones(2).long(), rf"{count}; .*int64 of shape \(2,\)"),
        ("momentum", lambda layer: "a", f"{number} 'a'"),
        ("eps", lambda layer: None, f"{number} None"),
        ("eps", lambda layer: [1e-5], rf"{number} \[1e-05\]"),
    )
    return tuple(
        Bad(
            f"{part}_{i}",
            lambda given, part=part, value=value: {
                argument: given[argument]._replace(**{part: value(given[argument])})
            },
            TypeError,
            f"{op}: `{prefix}{part}` {rule}",
        )
        for i, (part, value, rule) in enumerate(wrong)
    )


class BlockRules(BlockNumbers):
    """Subclassed once a block function: its numbers, how it sits in PyTorch, what it keeps and skips."""

    # How it sits in PyTorch

    @FEW_MODES
    def test_opcheck(self, composition: str, training: bool, backend: str, device: torch.device) -> None:
        sample = self.sample(self.shape(), device=device)
        with fusedres.backend(backend), fusedres.composition(composition), _Capture(self.op) as captured:
            sample.call(self.ours, training=training)
        ((func, args),) = captured.calls
        torch.library.opcheck(func, args)

    @FEW_MODES
    def test_compiles_without_a_break(
        self, composition: str, training: bool, backend: str, device: torch.device
    ) -> None:
        sample = self.sample(self.shape(), device=device)
        torch._dynamo.reset()
        compiled = torch.compile(self.ours, fullgraph=True, backend="aot_eager")
        with fusedres.backend(backend), fusedres.composition(composition):
            ours = step(sample, compiled, training=training)
            eager = step(sample, self.ours, training=training)
        for name, value in eager.items():
            assert_same_bits(ours[name], value, f"{self.op} compiled: {name}")

    @TRAINING
    @pytest.mark.parametrize("layout", ["nchw", "scattered"])
    def test_any_strides(self, layout: str, training: bool, backend: str, device: torch.device) -> None:
        sample = self.sample(self.shape(), device=device, training=training)

        def change(name: str, tensor: Tensor) -> Tensor:
            other = tensor.detach().clone(memory_format=torch.contiguous_format)
            if layout == "scattered" and tensor.dim():
                other = scattered(other)
            return other.requires_grad_(tensor.requires_grad)

        other = sample.map(change)
        with fusedres.backend(backend):
            out = other.call(self.ours, training=training)
        out.backward(gradient_for(out))
        assert out.is_contiguous(memory_format=torch.channels_last)
        ours = {"out": out.detach()} | {f"grad of {n}": t.grad for n, t in other.leaves().items()}
        self.compare(ours | other.buffers(), sample, f"{self.op} {layout}", training=training)

    @TRAINING
    @COMPOSITION
    def test_reads_and_leaves_no_uninitialised_memory(
        self, composition: str, training: bool, memory: str, backend: str, device: torch.device
    ) -> None:
        sample = self.sample(self.shape(), device=device)
        with fusedres.backend(backend), fusedres.composition(composition), fusedres.memory(memory):
            clean = step(sample, self.ours, training=training)
            with poisoned_memory():
                poisoned = step(sample, self.ours, training=training)
        for name, value in clean.items():
            assert_same_bits(poisoned[name], value, f"{self.op} in poisoned memory: {name}")

    @TRAINING
    @COMPOSITION
    def test_same_bits_every_time(
        self, composition: str, training: bool, backend: str, device: torch.device
    ) -> None:
        sample = self.sample(self.shape("many_tiles"), device=device)
        with fusedres.backend(backend), fusedres.composition(composition):
            first, second = (step(sample, self.ours, training=training) for _ in range(2))
        for name, value in first.items():
            assert_same_bits(second[name], value, f"{self.op} again: {name}")

    @TRAINING
    def test_autocast_leaves_batch_norm_in_fp32(
        self, training: bool, backend: str, device: torch.device
    ) -> None:
        """x and weights are cast, BatchNorm's parameters are not; gradients come back in fp32."""
        sample = self.sample(self.shape(), torch.bfloat16, device, training).to(torch.float32, device)
        if sample.residual is not None:  # as it comes from a layer before; an fp32 one makes torch's sum fp32
            residual = sample.residual.detach().bfloat16().requires_grad_()
            sample = replace(sample, residual=residual)

        def under_autocast(block: Block) -> dict[str, Tensor]:
            with torch.autocast(device.type, torch.bfloat16):
                return step(sample, block, training=training)

        with fusedres.backend(backend):
            ours = under_autocast(self.ours)
        assert ours["out"].dtype == torch.bfloat16
        plain = under_autocast(self.plain)
        with fusedres.backend("reference"):
            ref = step(sample.to(torch.float64), self.ours, training=training)
        for name, value in ours.items():
            if value.is_floating_point():
                assert value.dtype == plain[name].dtype, name
                # Gradients of weights are bf16 before they are cast: eps is bf16's, whatever the dtype.
                value, yardstick = value.bfloat16(), plain[name].bfloat16()
                slack = 0.0 if training else self.slack(name, torch.bfloat16, sample, ref)
                assert_within_two_x(value, ref[name], yardstick, f"{self.op} autocast: {name}", slack)

    # What is computed and kept

    def kept(self, sample: Sample, training: bool, memory: str) -> list[tuple[int, torch.dtype]]:
        """Elements and dtype of each map that backward may keep; per-channel vectors come on top."""
        raise NotImplementedError

    @TRAINING
    @COMPOSITION
    def test_keeps_no_more_than_it_must(
        self, composition: str, training: bool, memory: str, backend: str, device: torch.device
    ) -> None:
        sample = self.sample(self.shape("many_tiles"), device=device)
        parameters = {t.untyped_storage().data_ptr() for n, t in sample.leaves().items() if n != "x"}
        settings = fusedres.backend(backend), fusedres.composition(composition), fusedres.memory(memory)
        with settings[0], settings[1], settings[2], saved_for_backward() as saved:
            sample.call(self.ours, training=training)
        maps = [t for t in saved if t.dim() == 4 and t.untyped_storage().data_ptr() not in parameters]
        assert sorted((t.numel(), str(t.dtype)) for t in maps) == sorted(
            (numel, str(dtype)) for numel, dtype in self.kept(sample, training, memory)
        )
        rest = [t for t in saved if t.dim() != 4]
        assert all(t.dim() == 1 for t in rest), "per-channel vectors, and nothing else"

    @TRAINING
    @COMPOSITION
    def test_frozen_weights_cost_no_wgrad(
        self, composition: str, training: bool, backend: str, device: torch.device
    ) -> None:
        """Everything frozen but x: its gradient alone is formed, and it is the same."""
        sample = self.sample(self.shape(), device=device)
        frozen = sample.map(lambda name, t: t.detach().requires_grad_(name == "x"))
        with fusedres.backend(backend), fusedres.composition(composition):
            expected = step(sample, self.ours, training=training)
            with KernelCalls() as kernels:
                ours = step(frozen, self.ours, training=training)
        assert [n for n in ours if n.startswith("grad")] == ["grad of x"]
        assert_same_bits(ours["grad of x"], expected["grad of x"], "grad of x")
        assert kernels.calls and kernels.weight_gradients() == 0

    @TRAINING
    @COMPOSITION
    def test_an_input_without_gradient_costs_no_dgrad(
        self, composition: str, training: bool, backend: str, device: torch.device
    ) -> None:
        sample = self.sample(self.shape(), device=device)
        first = sample.map(lambda name, t: t.detach().requires_grad_(t.requires_grad and name != "x"))
        with fusedres.backend(backend), fusedres.composition(composition):
            expected = step(sample, self.ours, training=training)
            with KernelCalls() as kernels:
                ours = step(first, self.ours, training=training)
        assert "grad of x" not in ours
        for name, value in ours.items():
            assert_same_bits(value, expected[name], name)
        chain = len([name for name in sample.layers if name != "downsample"])
        assert kernels.input_gradients() == chain - 1

    @COMPOSITION
    def test_training_batch_norm_alone_needs_no_convolution_backward(
        self, composition: str, backend: str, device: torch.device
    ) -> None:
        sample = self.sample(self.shape(), device=device)
        last = [name for name in sample.layers if name != "downsample"][-1]
        wanted = {f"{last}.bn_weight", f"{last}.bn_bias"}
        tuned = sample.map(lambda name, t: t.detach().requires_grad_(name in wanted))
        with fusedres.backend(backend), fusedres.composition(composition):
            expected = step(sample, self.ours, training=True)
            with KernelCalls() as kernels:
                ours = step(tuned, self.ours, training=True)
        assert {n for n in ours if n.startswith("grad")} == {f"grad of {n}" for n in wanted}
        for name in wanted:
            assert_same_bits(ours[f"grad of {name}"], expected[f"grad of {name}"], name)
        assert kernels.calls and kernels.input_gradients() == kernels.weight_gradients() == 0

    @COMPOSITION
    def test_pointwise_alone_runs_the_librarys_convolutions(
        self, composition: str, backend: str, device: torch.device
    ) -> None:
        """Everywhere else gradients are the back-end's own, of a stem as well."""
        sample = self.sample(self.shape(), device=device)
        with fusedres.backend(backend), fusedres.composition(composition), KernelCalls() as kernels:
            step(sample, self.ours, training=True)
        names = kernels.names()
        ran = bool(kernels.library), "conv_wgrad" in names and "conv_dgrad" in names
        assert ran == ((True, False) if composition == "pointwise" else (False, True))

    # Errors

    @TRAINING
    def test_bad_input(self, bad_input: Bad, training: bool) -> None:
        sample = self.sample(self.shape())
        self.refuses(bad_input, sample, self.good(sample, training))

    @pytest.mark.parametrize("how", ["inference", "autocast"])
    def test_bad_input_where_it_is_read_early(self, bad_input: Bad, how: str) -> None:
        """By what prepares a block, and by what casts it."""
        sample = self.sample(self.shape())
        with torch.no_grad() if how == "inference" else torch.autocast("cpu", torch.bfloat16):
            self.refuses(bad_input, sample, self.good(sample, False))

    def good(self, sample: Sample, training: bool) -> dict[str, Any]:
        good = {"x": sample.x, **sample.layers, **sample.options, "training": training}
        return good if sample.residual is None else {**good, "residual": sample.residual}

    def refuses(self, bad_input: Bad, sample: Sample, good: dict[str, Any]) -> None:
        before = {name: t.detach().clone() for name, t in sample.buffers().items()}
        with pytest.raises(bad_input.error, match=bad_input.match):
            self.ours(**{**good, **bad_input.change(good)})
        for name, t in sample.buffers().items():
            assert torch.equal(t, before[name]), f"{name} was touched before the error"


class _Capture(TorchDispatchMode):
    """Records the calls of one block op, with the arguments autograd saw."""

    def __init__(self, op: str) -> None:
        super().__init__()
        self.op = op
        self.calls: list[tuple[Any, tuple[Any, ...]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is getattr(torch.ops.fusedres, self.op).default:
            self.calls.append((func, args))
        return func(*args, **(kwargs or {}))
