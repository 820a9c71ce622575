"""Which layers of a block move their running statistics in one call, and which apart."""

import torch

import fusedres.ops
from fusedres.ops._functional import ConvBN, update_running
from fusedres.ops._residual import Statistics
from tests._parity import assert_same_bits
from tests._probe import KernelCalls

SHAPE = (2, 3, 4, 5)


def layer(momentum: float | None, counted: bool) -> ConvBN:
    count = torch.tensor(5) if counted else None
    return ConvBN(torch.empty(3, 3, 1, 1), None, None, torch.rand(3), torch.rand(3), count, momentum)


def written(layers: list[ConvBN]) -> list[torch.Tensor]:
    found = [t for x in layers for t in (x.running_mean, x.running_var, x.num_batches_tracked)]
    return [t.clone() for t in found if t is not None]


def test_layers_that_differ_and_a_batch_norm_used_twice() -> None:
    torch.manual_seed(0)
    twice = layer(0.1, True)
    layers = [twice, layer(0.1, True), layer(None, True), layer(0.1, False), twice]
    statistics = [Statistics(*torch.rand(5, 3)) for _ in layers]
    before = written(layers[:4])
    for each, stats in zip(layers, statistics, strict=True):
        running = each.running_mean, each.running_var, each.num_batches_tracked
        fusedres.ops.bn_update_running(*running, stats.mean, stats.var, 40, each.momentum, backend="cpu")
    alone = written(layers[:4])
    for each, value in zip([t for x in layers[:4] for t in x[3:6] if t is not None], before, strict=True):
        each.copy_(value)
    with KernelCalls() as kernels:
        update_running("cpu", layers, statistics, [SHAPE] * len(layers))
    assert kernels.names() == ["bn_update_running"] * 4
    assert [len(args[0]) for _, args in kernels.calls] == [2, 1, 1, 1]
    for ours, expected in zip(written(layers[:4]), alone, strict=True):
        assert_same_bits(ours, expected, "running statistics")
