"""What PyTorch offers around a model: checkpointing, DDP, functional calls, freezing, autocast."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint, checkpoint_sequential, set_checkpoint_early_stop
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

import fusedres
from fusedres import FusedResNet
from tests._fused import fused_calls
from tests._parity import assert_same_bits


def tiny(block: type[BasicBlock | Bottleneck] = BasicBlock) -> FusedResNet:
    return FusedResNet(block, [1, 1, 1, 1], num_classes=3)


def images(count: int = 2) -> Tensor:
    return torch.randn(count, 3, 33, 33)


class Checkpointed(nn.Module):
    """A ResNet's first stages, each checkpointed."""

    def __init__(self, model: ResNet, reentrant: bool) -> None:
        super().__init__()
        self.stages = nn.ModuleList([model.layer1, model.layer2])
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            x = checkpoint(stage, x, use_reentrant=self.reentrant)
        return x


def checkpointed_results(model: ResNet, reentrant: bool) -> dict[str, Tensor]:
    x = torch.randn(2, 64, 9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    wrapped = Checkpointed(model, reentrant)
    out = wrapped(x.requires_grad_())
    out.square().sum().backward()
    gradients = {f"d{name}": p.grad for name, p in wrapped.named_parameters()}
    return {"out": out, "dx": x.grad, **gradients, **dict(wrapped.named_buffers())}


@pytest.mark.parametrize("early_stop", [True, False])
@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_gives_torchvisions_outputs_and_gradients(reentrant: bool, early_stop: bool) -> None:
    """Statistics move twice, once in each forward, as torchvision's do; with one exception.

    A non-reentrant checkpoint stops its second forward as soon as all that was saved is there again. For
    a fused block that is before its statistics move: those of a checkpoint's last block move once.
    """
    plain = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=3).double()
    ours = fusedres.fuse(copy.deepcopy(plain))
    with set_checkpoint_early_stop(early_stop):
        expected, got = (checkpointed_results(model, reentrant) for model in (plain, ours))
    once = early_stop and not reentrant
    assert got["stages.0.0.bn1.num_batches_tracked"] == (1 if once else 2)
    for name, value in expected.items():
        if not (once and ("running" in name or "tracked" in name)):
            torch.testing.assert_close(got[name], value, rtol=1e-9, atol=1e-9, msg=name)


def test_recompute_moves_statistics_once() -> None:
    ours = tiny(Bottleneck)
    expected = copy.deepcopy(ours)
    x = images()
    expected(x).sum().backward()
    with fusedres.memory("recompute"):
        ours(x).sum().backward()
    assert ours.layer1[0].bn3.num_batches_tracked == 1
    for name, buffer in ours.named_buffers():
        assert_same_bits(buffer, expected.get_buffer(name), name)


def test_checkpoint_sequential() -> None:
    ours = tiny().eval()
    layers = [ours.layer1, ours.layer2]
    x = torch.randn(2, 64, 9, 9, requires_grad=True)
    out = checkpoint_sequential(layers, 2, x, use_reentrant=False)
    assert_same_bits(out, ours.layer2(ours.layer1(x)), "activations")


def _ddp_worker(rank: int, world: int, rendezvous: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world)
    try:
        torch.manual_seed(0)
        model = tiny().double()
        twins = [fusedres.unfuse(copy.deepcopy(model)) for _ in range(world)]
        shards = torch.randn(world, 2, 3, 33, 33, dtype=torch.float64)
        DistributedDataParallel(model)(shards[rank]).square().sum().backward()
        # The mean of the shards' gradients, each shard with its own batch statistics.
        for twin, shard in zip(twins, shards, strict=True):
            twin(shard).square().sum().backward()
        for parameters in zip(model.parameters(), *(twin.parameters() for twin in twins), strict=True):
            mine, *theirs = (p.grad for p in parameters)
            torch.testing.assert_close(mine, torch.stack(theirs).mean(0), rtol=1e-8, atol=1e-8)
    finally:
        dist.destroy_process_group()


needs_gloo = pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available()), reason="torch was built without gloo"
)


@needs_gloo
def test_ddp_in_one_process(tmp_path: Path) -> None:
    _ddp_worker(0, 1, str(tmp_path / "rendezvous"))


@needs_gloo
@pytest.mark.slow
def test_ddp_averages_gradients_over_two_processes(tmp_path: Path) -> None:
    mp.spawn(_ddp_worker, args=(2, str(tmp_path / "rendezvous")), nprocs=2)


def test_functional_call_uses_the_given_tensors() -> None:
    ours = tiny().eval()
    x = images()
    doubled = {name: p.detach() * 2 for name, p in ours.named_parameters()}
    with fused_calls() as calls:
        got = functional_call(ours, doubled, (x,))
    assert calls
    twin = tiny().eval()
    twin.load_state_dict({**ours.state_dict(), **doubled})
    assert_same_bits(got, twin(x), "logits")
    buffers = {name: b.clone() for name, b in ours.named_buffers()}
    before = {name: b.clone() for name, b in ours.named_buffers()}
    functional_call(ours.train(), {**doubled, **buffers}, (x,))
    assert all(torch.equal(b, before[name]) for name, b in ours.named_buffers())
    assert buffers["bn1.num_batches_tracked"] == 1


def test_function_transforms_run_torchvisions_forward() -> None:
    """vmap and grad need rules for every op they meet; aten's have them."""
    ours = tiny().eval()
    parameters = {name: p.detach() for name, p in ours.named_parameters()}

    def loss(parameters: dict[str, Tensor], image: Tensor) -> Tensor:
        return functional_call(ours, parameters, (image[None],)).square().sum()

    x = images(3)
    per_image = vmap(grad(loss), in_dims=(None, 0))(parameters, x)
    for i in range(3):
        ours.zero_grad()
        ours(x[i : i + 1]).square().sum().backward()
        torch.testing.assert_close(per_image["conv1.weight"][i], ours.conv1.weight.grad, rtol=1e-3, atol=1e-3)


def test_forward_mode_derivatives_are_right_or_refused() -> None:
    ours, x, tangent = tiny().eval(), images(), images()
    expected = torch.func.jvp(fusedres.unfuse(ours), (x,), (tangent,))[1]
    torch.testing.assert_close(torch.func.jvp(ours, (x,), (tangent,))[1], expected)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, tangent)
        try:
            out = ours(dual)
        except (RuntimeError, NotImplementedError):
            return
        got = torch.autograd.forward_ad.unpack_dual(out).tangent
        assert got is not None, "the derivative was lost without a word"
        torch.testing.assert_close(got, expected)


def _freeze_stem_and_first_stage(model: nn.Module) -> None:
    for part in (model.conv1, model.bn1, model.layer1):
        part.requires_grad_(False)


def _freeze_batch_norms(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.requires_grad_(False).eval()


def _freeze_convolutions(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.requires_grad_(False)


def _freeze_all_but_the_head(model: nn.Module) -> None:
    model.requires_grad_(False)
    model.fc.requires_grad_(True)


@pytest.mark.parametrize(
    "freeze",
    [_freeze_stem_and_first_stage, _freeze_batch_norms, _freeze_convolutions, _freeze_all_but_the_head],
    ids=lambda f: f.__name__[8:],
)
def test_frozen_parts_get_no_gradient_and_the_rest_the_right_one(freeze: Callable[[nn.Module], None]) -> None:
    plain = ResNet(Bottleneck, [1, 1, 1, 1], num_classes=3).double()
    freeze(plain)
    ours = fusedres.fuse(copy.deepcopy(plain))
    x = images().double()
    with fused_calls() as calls:
        out = ours(x)
    assert len(calls) == 5
    out.square().sum().backward()
    plain(x).square().sum().backward()
    for (name, mine), theirs in zip(ours.named_parameters(), plain.parameters(), strict=True):
        assert (mine.grad is None) == (theirs.grad is None), name
        if theirs.grad is not None:
            torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-7, atol=1e-7, msg=name)


def test_gradients_accumulate_over_backwards() -> None:
    ours = tiny().double().eval()
    twice = copy.deepcopy(ours)
    x = images().double()
    ours(x).square().sum().backward()
    for _ in range(2):
        twice(x).square().sum().backward()
    torch.testing.assert_close(twice.conv1.weight.grad, 2 * ours.conv1.weight.grad)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_bf16_autocast_keeps_torchs_dtypes(training: bool) -> None:
    ours = tiny(Bottleneck).train(training)
    seen: list[torch.dtype] = []
    ours.layer4.register_forward_hook(lambda module, args, out: seen.append(out.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        out = ours(images())
    out.float().sum().backward()
    assert seen == [torch.bfloat16] and out.dtype == torch.bfloat16
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in ours.parameters())
    assert all(b.dtype == torch.float32 for n, b in ours.named_buffers() if "running" in n)


def test_sync_batch_norm_conversion_runs_unfused() -> None:
    ours = nn.SyncBatchNorm.convert_sync_batchnorm(tiny()).eval()
    with fused_calls() as calls:
        out = ours(images())
    assert calls == [] and out.isfinite().all()


def test_a_module_moves_between_devices_and_dtypes() -> None:
    meta = tiny().to("meta")
    assert meta(torch.empty(2, 3, 33, 33, device="meta")).shape == (2, 3)
    moved = meta.to_empty(device="cpu")
    moved.load_state_dict(tiny().state_dict())
    assert moved.double()(images().double()).dtype == torch.float64
