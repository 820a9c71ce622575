"""CUDA graphs and streams: what is launched is launched on the caller's current stream, and nothing waits."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

import fusedres
from fusedres import ops
from fusedres.ops._dispatch import BACKENDS
from tests._fused import calibrate
from tests._parity import assert_same_bits
from tests.conftest import device_of

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _cuda() -> None:
    if reason := BACKENDS["cuda"].refusal(device_of("cuda"), torch.float32):
        pytest.skip(f"back-end 'cuda': {reason}")


def captured(run: object, *inputs: Tensor) -> tuple[torch.cuda.CUDAGraph, tuple[Tensor, ...]]:
    """``run(*inputs)`` as a graph, with its outputs."""
    assert callable(run)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run(*inputs)  # what is cached or made once is made outside the graph
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = run(*inputs)
    return graph, out if isinstance(out, tuple) else (out,)


def pointwise_step(x: Tensor, gamma: Tensor, beta: Tensor) -> tuple[Tensor, ...]:
    """Every op around a convolution, forward and backward, in one go."""
    n = x.numel() // x.shape[1]
    count, mean, m2 = ops.bn_stats(x, backend="cuda")
    mu, var, invstd, scale, shift = ops.bn_finalize(count, mean, m2, gamma, beta, backend="cuda")
    out = ops.affine_add_act(x, scale, shift, backend="cuda")
    pooled, index = ops.affine_act_maxpool(x, scale, shift, backend="cuda")
    dz, sums, _ = ops.bn_act_bwd_reduce(x, out, x, mean=mu, invstd=invstd, backend="cuda")
    dgamma, dbeta, p, q, r = ops.bn_bwd_finalize(sums, gamma, mu, invstd, n, backend="cuda")
    dy, _ = ops.bn_act_bwd_apply(dz, x, p, q, r, backend="cuda")
    dpool, _ = ops.affine_act_maxpool_bwd(pooled, index, x, scale, shift, mu, invstd, backend="cuda")
    return mu, var, out, pooled, index, dgamma, dbeta, dy, dpool


def made(seed: int) -> Tensor:
    torch.manual_seed(seed)
    return torch.randn(2, 16, 9, 7).bfloat16().to("cuda", memory_format=torch.channels_last)


def test_graph_of_the_pointwise_ops() -> None:
    gamma, beta = torch.rand(16).cuda(), torch.randn(16).cuda()
    x = made(0)
    graph, outputs = captured(pointwise_step, x, gamma, beta)
    for seed in (1, 2):
        x.copy_(made(seed))
        graph.replay()
        for i, (ours, eager) in enumerate(zip(outputs, pointwise_step(x, gamma, beta), strict=True)):
            assert_same_bits(ours, eager, f"output {i} of replay {seed}")


def test_running_statistics_in_a_graph() -> None:
    """They move at every replay, and the count with them."""
    running = torch.zeros(8).cuda(), torch.ones(8).cuda(), torch.tensor(0).cuda()
    batch = torch.ones(8).cuda(), torch.ones(8).cuda()

    def update() -> None:
        ops.bn_update_running(*running, *batch, 10, None, backend="cuda")

    graph, _ = captured(update)
    before = int(running[2])
    for _ in range(3):
        graph.replay()
    assert int(running[2]) == before + 3
    torch.testing.assert_close(running[0], torch.ones(8).cuda())


def test_graph_of_an_inference() -> None:
    torch.manual_seed(0)
    downsample = nn.Sequential(nn.Conv2d(8, 16, 1, stride=2, bias=False), nn.BatchNorm2d(16))
    plain = BasicBlock(8, 16, 2, downsample).eval()
    fused = fusedres.fuse(copy.deepcopy(plain)).cuda().bfloat16()
    x = torch.randn(2, 8, 9, 7).bfloat16().to("cuda", memory_format=torch.channels_last)
    with torch.no_grad(), fusedres.backend("cuda"):
        graph, (out,) = captured(fused, x)
        x.copy_(torch.randn(x.shape).bfloat16())
        graph.replay()
        assert_same_bits(out, fused(x), "replayed block")


def whole(name: str) -> nn.Module:
    """A bf16 network on the GPU, its statistics those of an image."""
    model: nn.Module = getattr(fusedres, name)(num_classes=7)
    calibrate(model, torch.randn(2, 3, 33, 33))
    return model.eval().to("cuda", torch.bfloat16)


def image() -> Tensor:
    return torch.randn(2, 3, 33, 33).bfloat16().to("cuda", memory_format=torch.channels_last)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_graph_of_a_whole_inference(name: str) -> None:
    model, x = whole(name), image()
    with torch.no_grad(), fusedres.backend("cuda"):
        graph, (out,) = captured(model, x)
        for replay in range(2):
            x.copy_(image())
            graph.replay()
            assert_same_bits(out, model(x), f"{name}'s logits, replay {replay}")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_two_streams_of_a_whole_inference(name: str) -> None:
    model, inputs = whole(name), [image(), image()]
    streams = [torch.cuda.Stream(), torch.cuda.Stream()]
    with torch.no_grad(), fusedres.backend("cuda"):
        expected = [model(x) for x in inputs]
        torch.cuda.synchronize()
        found = []
        for stream, x in zip(streams, inputs, strict=True):
            with torch.cuda.stream(stream):
                found.append(model(x))
        torch.cuda.synchronize()
    for i, (ours, alone) in enumerate(zip(found, expected, strict=True)):
        assert_same_bits(ours, alone, f"{name}'s logits, stream {i}")


def test_two_streams() -> None:
    """Each stream has its own workspaces: steps that overlap leave each other alone."""
    gamma, beta = torch.rand(16).cuda(), torch.randn(16).cuda()
    inputs = [made(seed) for seed in range(2)]
    expected = [pointwise_step(x, gamma, beta) for x in inputs]
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream(), torch.cuda.Stream()]
    results: list[tuple[Tensor, ...]] = []
    for _ in range(3):
        results.clear()
        for stream, x in zip(streams, inputs, strict=True):
            with torch.cuda.stream(stream):
                results.append(pointwise_step(x, gamma, beta))
        torch.cuda.synchronize()
        for ours, alone in zip(results, expected, strict=True):
            for i, (o, e) in enumerate(zip(ours, alone, strict=True)):
                assert_same_bits(o, e, f"output {i} of two streams")
