"""``bn_update_running``: running statistics of a layer, in place."""

from __future__ import annotations

from benchmarks.conftest import Contest, Maker
from benchmarks.shapes import Layer
from benchmarks.versus import nbytes
from fusedres import ops
from tests import baselines
from tests._parity import assert_within_two_x


def bench_bn_update_running(layer: Layer, batch: int, make: Maker, contest: Contest) -> None:
    mean, running_mean = make.affine(layer.filters)
    var, running_var = (v.abs() for v in make.affine(layer.filters))
    old, new, n = (running_mean, running_var), (mean, var), batch * layer.out_size**2
    written = [v.clone() for v in old]
    ops.bn_update_running(written[0], written[1], None, mean, var, n, 0.1)
    plain = baselines.bn_update_running(*old, None, *new, n, 0.1)
    wide = [v.double() for v in (*old, *new)]
    exact = baselines.bn_update_running(wide[0], wide[1], None, wide[2], wide[3], n, 0.1)
    for kind, o, p, e in zip(("running_mean", "running_var"), written, plain, exact, strict=True):
        assert_within_two_x(o, e, p, kind)

    torch_mean, torch_var = (v.clone() for v in old)

    def in_place() -> None:
        """What a training step of torch's own does to its buffers."""
        torch_mean.mul_(0.9).add_(mean, alpha=0.1)
        torch_var.mul_(0.9).add_(var, alpha=0.1 * n / (n - 1))

    contest(
        lambda: ops.bn_update_running(written[0], written[1], None, mean, var, n, 0.1),
        in_place,
        moved=nbytes([*old, *new, *old]),
        flops=0,
    )
