"""A fused block on the `cuda` device of tools/ptxemu's stand-in, through Triton's own driver and launcher.

Run by test_standin.py under python -m ptxemu run; prints one line a check and fails by its exit status.
"""

from __future__ import annotations

import copy

import ptxemu.torch_mock
import torch
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd
from torchvision.models.resnet import BasicBlock

import fusedres
from fusedres import ops
from tests._parity import assert_same_bits, assert_within_two_x


def gradients(block: torch.nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Output, input gradient, parameter gradients and running statistics of one training step."""
    x = x.detach().requires_grad_()
    out = block(x)
    out.square().sum().backward()
    found = {"out": out.detach(), "x": x.grad}
    found |= {name: p.grad for name, p in block.named_parameters()}
    found |= {name: b for name, b in block.named_buffers() if b.is_floating_point()}
    return {name: t.detach().cpu() for name, t in found.items() if t is not None}


def check_compiled(block: torch.nn.Module, x: torch.Tensor) -> None:
    """torch.compile puts a kernel op's Triton kernels into the graph, and Inductor's code runs them."""
    targets: list[str] = []

    def note(graph: torch.fx.GraphModule, inputs: object) -> object:
        targets.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return make_boxed_func(graph.forward)

    def activate(y: torch.Tensor, s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return ops.affine_add_act(y, s, t, backend="triton")

    given = x.to(memory_format=torch.channels_last), *torch.rand(2, x.shape[1], device="cuda")
    out = torch.compile(activate, fullgraph=True, backend=aot_autograd(fw_compiler=note))(*given)
    assert_same_bits(out, activate(*given), "compiled")
    assert any("triton_kernel_wrapper" in target for target in targets), targets
    assert not any("affine_add_act" in target for target in targets), targets

    eager = gradients(copy.deepcopy(block), x)
    compiled = gradients(torch.compile(copy.deepcopy(block), fullgraph=True), x)
    for name, value in compiled.items():
        # Inductor makes the momentum a constant, in double precision: running statistics differ by a bit.
        tolerance = 2**-23 if "running" in name else 0.0
        expected = eager[name.removeprefix("_orig_mod.")]
        torch.testing.assert_close(value, expected, rtol=tolerance, atol=2**-23 * tolerance)


def main() -> None:
    ptxemu.torch_mock.install()
    torch.manual_seed(0)
    torch.backends.cudnn.allow_tf32 = False
    downsample = torch.nn.Sequential(
        torch.nn.Conv2d(16, 32, 1, stride=2, bias=False), torch.nn.BatchNorm2d(32)
    )
    plain = BasicBlock(16, 32, 2, downsample)
    x = torch.randn(2, 16, 7, 7)
    exact, fused = copy.deepcopy(plain).double(), fusedres.fuse(copy.deepcopy(plain)).cuda()
    reference, yardstick = gradients(exact, x.double()), gradients(plain, x)
    with fusedres.backend("triton"), fusedres.composition("mainloop"):
        ours = gradients(fused, x.cuda())
    assert ours.keys() == reference.keys()
    for name, value in ours.items():
        assert_within_two_x(value, reference[name], yardstick[name], name)
    print("training step: fine")
    with fusedres.backend("triton"), fusedres.composition("mainloop"):
        check_compiled(fused, x.cuda())
    print("compiled: fine")
    with fusedres.backend("triton"), torch.no_grad():
        out = fused.eval()(x.cuda()).cpu()
        exact.eval(), plain.eval()
        assert_within_two_x(out, exact(x.double()), plain(x), "eval")
    print("inference: fine")


if __name__ == "__main__":
    main()
