"""What has gone wrong in other fused ResNets, each by name."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.ops.misc import FrozenBatchNorm2d

import fusedres
from fusedres import FusedBasicBlock, FusedBottleneck
from tests._fused import assert_same_in_float64, fused_calls, results

BLOCKS = {"basic": lambda: BasicBlock(8, 8), "bottleneck": lambda: Bottleneck(16, 4)}
EACH_BLOCK = pytest.mark.parametrize("make", BLOCKS.values(), ids=BLOCKS)


def block_input(block: nn.Module, *, count: int = 2, side: int = 6) -> Tensor:
    return torch.randn(count, block.conv1.in_channels, side, side)


def assert_alike(ours: nn.Module, plain: nn.Module, x: Tensor, fused: str | None = None) -> None:
    """Outputs, gradients and statistics of both in float64, ours by the op named."""
    weights = torch.randn_like(copy.deepcopy(plain)(x))
    with fused_calls() as calls:
        got = results(ours, x, weights, torch.float64)
    assert fused is None or calls == [fused]
    ref, coarse = (results(plain, x, weights, dtype) for dtype in (torch.float64, torch.float32))
    assert_same_in_float64(got, ref, coarse, "block")


@EACH_BLOCK
def test_batch_norm_in_eval_mode_has_right_gradients(make) -> None:
    plain = make()
    plain(block_input(plain))  # running statistics other than 0 and 1
    plain.eval()
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, -1, 1)
            nn.init.uniform_(module.bias, -1, 1)
    assert_alike(fusedres.fuse(plain), plain, block_input(plain))


@EACH_BLOCK
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_half_precision_activations_with_fp32_batch_norms(make, training: bool) -> None:
    """AMP O2's layout: convolutions in bf16, BatchNorms and their gradients in fp32."""
    plain = make().train(training).bfloat16()
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.float()
    ours = fusedres.fuse(copy.deepcopy(plain))
    x = block_input(plain).bfloat16()
    with fused_calls() as calls:
        out = ours(x)
    assert len(calls) == 1 and out.dtype == torch.bfloat16
    out.float().sum().backward()
    plain(x).float().sum().backward()
    for (name, mine), theirs in zip(ours.named_parameters(), plain.parameters(), strict=True):
        assert mine.grad.dtype == theirs.grad.dtype == mine.dtype, name
    for (name, mine), theirs in zip(ours.named_buffers(), plain.buffers(), strict=True):
        assert mine.dtype == theirs.dtype and mine.isfinite().all(), name


def test_frozen_batch_norm_honours_its_eps() -> None:
    plain = BasicBlock(8, 8, norm_layer=lambda width: FrozenBatchNorm2d(width, eps=0.5))
    for buffer in plain.buffers():
        nn.init.uniform_(buffer, 0.01, 0.1)
    assert_alike(fusedres.fuse(plain), plain, block_input(plain), "basic_block")


def test_recompute_does_not_update_statistics_twice() -> None:
    ours = FusedBottleneck(16, 4)
    saved = copy.deepcopy(ours)
    x = block_input(ours).requires_grad_()
    saved(x).sum().backward()
    with fusedres.memory("recompute"):
        ours(x).sum().backward()
    for name, buffer in ours.named_buffers():
        assert torch.equal(buffer, saved.get_buffer(name)), name


@pytest.mark.parametrize("memory", ["save", "recompute"])
@EACH_BLOCK
def test_a_second_forward_before_the_first_backward_does_not_spoil_it(make, memory: str) -> None:
    ours = fusedres.fuse(make()).double()
    x, other = (block_input(ours).double() for _ in range(2))
    expected = copy.deepcopy(ours)
    expected(x).square().sum().backward()
    with fusedres.memory(memory):
        out = ours(x)
        ours(other)
        out.square().sum().backward()
    for (name, mine), theirs in zip(ours.named_parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-9, atol=1e-9, msg=name)


def test_an_optimiser_step_between_forward_and_backward_is_refused_as_by_torch() -> None:
    """Saved parameters are version-checked: a stale gradient would be silently wrong."""
    for block in (BasicBlock(8, 8), FusedBasicBlock(8, 8)):
        out = block(block_input(block).requires_grad_())
        with torch.no_grad():
            block.conv2.weight.mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            out.sum().backward()


@EACH_BLOCK
def test_one_value_per_channel_raises_torchs_own_error(make) -> None:
    plain = make()
    x = block_input(plain, count=1, side=1)
    messages = []
    for block in (plain, fusedres.fuse(plain)):
        with pytest.raises(ValueError, match="Expected more than 1 value per channel when training") as error:
            block(x)
        messages.append(str(error.value))
    assert messages[0] == messages[1]


def test_one_value_per_channel_leaves_statistics_as_they_were() -> None:
    ours = FusedBasicBlock(8, 8)
    before = copy.deepcopy(ours.state_dict())
    with pytest.raises(ValueError, match="Expected more than 1 value"):
        ours(block_input(ours, count=1, side=1))
    for name, value in ours.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@EACH_BLOCK
def test_an_empty_batch_behaves_as_torchvisions(make, training: bool) -> None:
    plain = make().train(training)
    ours = fusedres.fuse(copy.deepcopy(plain))
    x = block_input(plain, count=0)
    outcomes = []
    for block in (plain, ours):
        out = block(x)
        out.sum().backward()
        outcomes.append((out.shape, [p.grad for p in block.parameters()], dict(block.named_buffers())))
    assert outcomes[0][0] == outcomes[1][0] == x.shape
    for theirs, mine in zip(outcomes[0][1], outcomes[1][1], strict=True):
        torch.testing.assert_close(mine, theirs)
    for name, theirs in outcomes[0][2].items():
        torch.testing.assert_close(outcomes[1][2][name], theirs, equal_nan=True, msg=name)


def test_an_empty_batch_passes_through_a_whole_model() -> None:
    plain = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=3).eval()
    x = torch.randn(0, 3, 32, 32)
    assert fusedres.fuse(plain)(x).shape == plain(x).shape == (0, 3)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@EACH_BLOCK
def test_without_tracked_statistics_the_batchs_own_are_used(make, training: bool) -> None:
    plain = make()
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats = False
            module.running_mean = module.running_var = module.num_batches_tracked = None
    plain.train(training)
    assert_alike(fusedres.fuse(plain), plain, block_input(plain))


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_statistics_that_are_kept_but_no_longer_tracked_do_not_move(training: bool) -> None:
    """torch's reading of ``track_running_stats = False`` set later: used in inference, kept in training."""
    plain = BasicBlock(8, 8)
    plain(block_input(plain))
    plain.bn1.track_running_stats = plain.bn2.track_running_stats = False
    plain.train(training)
    assert_alike(fusedres.fuse(plain), plain, block_input(plain), "basic_block")


def test_momentum_none_is_the_cumulative_average() -> None:
    plain = Bottleneck(16, 4, norm_layer=lambda width: nn.BatchNorm2d(width, momentum=None)).double()
    ours = fusedres.fuse(copy.deepcopy(plain))
    for _ in range(3):
        x = block_input(plain).double()
        torch.testing.assert_close(ours(x), plain(x), rtol=1e-10, atol=1e-10)
    for name, buffer in plain.named_buffers():
        torch.testing.assert_close(ours.get_buffer(name), buffer, rtol=1e-10, atol=1e-10, msg=name)


def test_momentum_none_without_a_counter_leaves_statistics_alone() -> None:
    plain = BasicBlock(8, 8, norm_layer=lambda width: nn.BatchNorm2d(width, momentum=None))
    plain.bn1.num_batches_tracked = plain.bn2.num_batches_tracked = None
    assert_alike(fusedres.fuse(plain), plain, block_input(plain), "basic_block")


def test_a_convolution_behind_two_batch_norms_is_not_fused_wrongly() -> None:
    plain = BasicBlock(8, 8)
    plain.conv2 = plain.conv1
    assert_alike(fusedres.fuse(plain), plain, block_input(plain))


def test_a_convolution_shared_by_two_blocks_gets_both_gradients() -> None:
    plain = nn.Sequential(BasicBlock(8, 8), BasicBlock(8, 8))
    plain[1].conv1 = plain[0].conv2
    ours = fusedres.fuse(copy.deepcopy(plain)).double()
    x = torch.randn(2, 8, 6, 6, dtype=torch.float64)
    plain.double()(x).square().sum().backward()
    ours(x).square().sum().backward()
    torch.testing.assert_close(ours[0].conv2.weight.grad, plain[0].conv2.weight.grad, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("composition", ["pointwise", "stats", "mainloop"])
def test_running_statistics_stay_finite_and_variances_positive(composition: str) -> None:
    """Large offsets: variances from Σx² − (Σx)² would be negative here."""
    ours = FusedBasicBlock(8, 8)
    ours.composition = composition
    for offset in (0.0, 1e3, 1e4):
        ours(torch.randn(4, 8, 6, 6) * 1e-2 + offset)
    ours(torch.full((4, 8, 6, 6), 100.0))
    for name, buffer in ours.named_buffers():
        assert buffer.isfinite().all(), name
        if name.endswith("running_var"):
            assert (buffer >= 0).all(), name


@EACH_BLOCK
def test_double_backward_is_refused_or_right(make) -> None:
    ours = fusedres.fuse(make()).double()
    x = block_input(ours).double().requires_grad_()
    with pytest.raises(RuntimeError, match=r"double backward.*fusedres\.unfuse\(model\)"):
        torch.autograd.grad(ours(x).square().sum(), x, create_graph=True)
    ours.composition = "plain"
    (dx,) = torch.autograd.grad(ours(x).square().sum(), x, create_graph=True)
    dx.square().sum().backward()
    assert ours.conv1.weight.grad.isfinite().all()


def test_a_callers_input_is_never_written() -> None:
    """torchvision's blocks add in place, but never into what the caller gave."""
    for block in (FusedBasicBlock(8, 8), FusedBottleneck(16, 4)):
        x = block_input(block).contiguous(memory_format=torch.channels_last)
        before = x.clone()
        for training in (True, False):
            out = block.train(training)(x)
            assert torch.equal(x, before) and out.data_ptr() != x.data_ptr()
