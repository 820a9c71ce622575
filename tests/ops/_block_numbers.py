"""Numbers of the block functions: outputs, gradients and statistics, in every mode."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import fusedres
from fusedres.ops._dispatch import BACKENDS
from tests._parity import assert_same_arithmetic, assert_same_bits, assert_within_two_x
from tests.conftest import device_of
from tests.ops._block_case import COMPOSITION, COMPOSITIONS, FEW_MODES, TRAINING, BlockCase, pooled, stacked
from tests.ops._samples import Sample, gradient_for, step


class BlockNumbers(BlockCase):
    """Mixed into :class:`tests.ops._block_rules.BlockRules`."""

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
    @TRAINING
    @COMPOSITION
    def test_numbers(
        self, shape: Any, composition: str, training: bool, dtype: torch.dtype, backend: str
    ) -> None:
        """The 2× rule for the output, every gradient and every running statistic."""
        device = device_of(backend)
        if reason := BACKENDS[backend].refusal(device, dtype):
            pytest.skip(reason)
        if dtype == torch.bfloat16 and shape.name == "many_tiles":
            pytest.skip(
                "among so many values some lie at a ReLU's edge, whose gradient bf16 decides by chance"
            )
        samples, expected = pooled(type(self), shape, dtype, training, device)
        with fusedres.backend(backend), fusedres.composition(composition):
            ours = stacked([step(sample, self.ours, training=training) for sample in samples])
        self.compare_to(ours, expected, f"{self.op} {shape}")

    @TRAINING
    @COMPOSITION
    def test_reference_is_plain_pytorch_in_float64(
        self, shape: Any, composition: str, training: bool, memory: str
    ) -> None:
        sample = self.sample(shape, torch.float64, training=training)
        with fusedres.backend("reference"), fusedres.composition(composition), fusedres.memory(memory):
            ours = step(sample, self.ours, training=training)
        plain = step(sample, self.plain, training=training)
        assert ours.keys() == plain.keys()
        for name, value in ours.items():
            compare = assert_same_arithmetic if value.is_floating_point() else assert_same_bits
            compare(value, plain[name], f"{self.op} {shape}: {name}")

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
    def test_inference(self, shape: Any, dtype: torch.dtype, backend: str, device: torch.device) -> None:
        """Without gradients nothing is kept, and other kernels run; twice, for what is cached between."""
        sample = self.sample(shape, dtype, device)
        ref = sample.to(torch.float64).call(self.plain).detach()
        for grad_off in (torch.no_grad, torch.inference_mode):
            with grad_off(), fusedres.backend(backend):
                outs = [sample.call(self.ours) for _ in range(2)]
            assert not outs[0].requires_grad
            assert_same_bits(outs[0], outs[1], "the second inference")
            assert_within_two_x(outs[0].clone(), ref, sample.call(self.plain).detach(), f"{self.op} {shape}")

    @FEW_MODES
    def test_gradcheck(self, composition: str, training: bool) -> None:
        sample = self.sample(self.shape("tiny"), torch.float64, training=training)
        leaves = sample.leaves()

        def block(*tensors: Tensor) -> Tensor:
            named = dict(zip(leaves, tensors, strict=True))
            fresh = sample.map(lambda name, t: named.get(name, t.detach().clone()))
            return fresh.call(self.ours, training=training)

        with fusedres.backend("reference"), fusedres.composition(composition):
            assert torch.autograd.gradcheck(block, tuple(leaves.values()))

    @COMPOSITION
    def test_double_backward_is_refused(self, composition: str, backend: str, device: torch.device) -> None:
        sample = self.sample(self.shape(), device=device)
        with fusedres.backend(backend), fusedres.composition(composition):
            out = sample.call(self.ours, training=True)
            (dx,) = torch.autograd.grad(out.square().sum(), sample.x)
            assert dx.isfinite().all()
            with pytest.raises(RuntimeError, match=r"double backward .* is not supported by fused blocks"):
                out = sample.call(self.ours, training=True)
                torch.autograd.grad(out.square().sum(), sample.x, create_graph=True)

    # Statistics

    def test_momentum_none_is_the_cumulative_average(self, backend: str, device: torch.device) -> None:
        sample = self.sample(self.shape(), device=device)
        layers = {
            name: layer._replace(momentum=None, num_batches_tracked=torch.tensor(3, device=device))
            for name, layer in sample.layers.items()
        }
        sample = Sample(sample.x, layers, sample.residual, sample.options)
        with fusedres.backend(backend):
            ours = step(sample, self.ours, training=True)
        assert all(int(v) == 4 for n, v in ours.items() if n.endswith("num_batches_tracked"))
        self.compare(ours, sample, f"{self.op} momentum=None", training=True)

    @TRAINING
    def test_without_running_statistics(self, training: bool, backend: str, device: torch.device) -> None:
        """track_running_stats=False: the batch's statistics, in training and out of it."""
        sample = self.sample(self.shape(), device=device, training=True)
        layers = {
            name: layer._replace(running_mean=None, running_var=None, num_batches_tracked=None)
            for name, layer in sample.layers.items()
        }
        sample = Sample(sample.x, layers, sample.residual, sample.options)
        with fusedres.backend(backend):
            ours = step(sample, self.ours, training=training)
        self.compare(ours, sample, f"{self.op} without running statistics", training=training)

    def test_inference_sees_what_training_moved(self, backend: str, device: torch.device) -> None:
        """What inference keeps between calls is derived from running statistics; a step makes it stale."""
        sample = self.sample(self.shape(), device=device)
        with fusedres.backend(backend), torch.no_grad():
            before = sample.call(self.ours)
            sample.call(self.ours, training=True)
            after = sample.call(self.ours)
            fresh = sample.map(lambda _, t: t.clone()).call(self.ours)
        assert not torch.equal(before, after)
        assert_same_bits(after, fresh, f"{self.op} after a step")

    def test_without_gamma_and_beta(self, backend: str, device: torch.device) -> None:
        sample = self.sample(self.shape(), device=device)
        layers = {n: layer._replace(bn_weight=None, bn_bias=None) for n, layer in sample.layers.items()}
        bare = Sample(sample.x, layers, sample.residual, sample.options)
        with fusedres.backend(backend):
            ours = step(bare, self.ours, training=True)
        self.compare(ours, bare, f"{self.op} affine=False", training=True)

    def test_gradients_take_their_parameters_dtype(self, backend: str, device: torch.device) -> None:
        """A model that is bf16 throughout, its γ and β too."""
        sample = self.sample(self.shape(), torch.bfloat16, device)
        narrow = sample.map(
            lambda n, t: (t.detach().bfloat16() if t.is_floating_point() else t).requires_grad_(
                t.requires_grad
            )
        )
        with fusedres.backend(backend):
            ours = step(narrow, self.ours, training=True)
        for name, leaf in narrow.leaves().items():
            assert ours[f"grad of {name}"].dtype == leaf.dtype == torch.bfloat16, name
        self.compare(ours, narrow, f"{self.op} all in bf16", training=True)

    def test_a_constant_input_leaves_finite_statistics(self, backend: str, device: torch.device) -> None:
        sample = self.sample(self.shape(), device=device)
        constant = Sample(torch.full_like(sample.x, 100.0), sample.layers, sample.residual, sample.options)
        with fusedres.backend(backend):
            for name, value in step(constant, self.ours, training=True).items():
                assert value.isfinite().all(), name

    @TRAINING
    @COMPOSITION
    def test_empty_batch_is_torchs(
        self, composition: str, training: bool, backend: str, device: torch.device
    ) -> None:
        sample = self.sample(self.shape("empty"), device=device)
        with fusedres.backend(backend), fusedres.composition(composition):
            ours = step(sample, self.ours, training=training)
        plain = step(sample, self.plain, training=training)
        assert ours.keys() == plain.keys()
        for name, value in plain.items():
            assert_same_bits(ours[name], value, f"{self.op} of nothing: {name}")

    def test_second_forward_does_not_spoil_the_first_backward(
        self, memory: str, backend: str, device: torch.device
    ) -> None:
        for composition in COMPOSITIONS:
            sample = self.sample(self.shape(), device=device)
            with fusedres.backend(backend), fusedres.composition(composition), fusedres.memory(memory):
                expected = step(sample, self.ours, training=True)
                first = sample.call(self.ours, training=True)
                other = Sample(torch.randn_like(sample.x) * 3, sample.layers, sample.residual, sample.options)
                other.call(self.ours, training=True)
                first.backward(gradient_for(first))
            for name, leaf in sample.leaves().items():
                assert_same_bits(leaf.grad, expected[f"grad of {name}"], f"{composition}: {name}")
