"""torch and an extension on the stand-in device: python torch_main.py CHECK [extension.so]."""

import sys

import ptxemu.torch_mock
import torch
import torch.nn.functional as F


def tensors() -> None:
    assert torch.cuda.is_available() and torch.cuda.device_count() == 1
    assert torch.cuda.get_device_capability() == (9, 0)
    x = torch.randn(5, 7)
    on_device = x.cuda()
    assert on_device.is_cuda and torch.equal(on_device.cpu(), x)
    copied = torch.empty(3, 4, device="cuda")
    copied.copy_(torch.arange(12.0).view(3, 4))
    assert copied.cpu().sum() == 66
    torch.cuda.Stream()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    torch.cuda.synchronize()


def builtin_kernel() -> None:
    _ = torch.ones(4).cuda() + 1


def extension() -> None:
    x, scale = torch.randn(33, 20), torch.rand(20)
    y = torch.ops.pe_test.scale_relu(x.cuda(), scale.cuda(), 2.0, 0.5)
    assert torch.allclose(y.cpu(), (x * scale * 2 + 0.5).relu())
    torch.ops.pe_test.scale_relu(x.cuda(), scale.cuda(), 1.0, 0.0)
    assert torch.ops.pe_test.calls() == 2
    x, weight = torch.randn(2, 10, 9, 64).bfloat16(), (torch.randn(40, 3, 3, 64) / 24).bfloat16()
    scale, bias, residual = torch.rand(40), torch.randn(40), torch.randn(2, 10, 9, 40).bfloat16()
    arguments = [tensor.cuda() for tensor in (x, weight, scale, bias, residual)]
    y = torch.ops.pe_test.conv(*arguments, 1, 1, True).cpu()
    product = F.conv2d(x.float().permute(0, 3, 1, 2), weight.float().permute(0, 3, 1, 2), padding=1)
    want = (product.permute(0, 2, 3, 1) * scale + bias + residual.float()).relu()
    assert torch.allclose(y.float(), want, rtol=2e-2, atol=2e-2)


def count_one_launch() -> None:
    torch.ops.pe_test.scale_relu(torch.ones(1024).cuda(), torch.ones(4).cuda(), 1.0, 0.0)


def out_of_bounds() -> None:
    torch.ops.pe_test.oob(torch.zeros(100).cuda())


def host_pointer() -> None:
    torch.ops.pe_test.scale_relu(torch.zeros(100).cuda(), torch.zeros(10), 1.0, 0.0)


def cuda_graph() -> None:
    """Kernels, memsets and copies of an extension, and aten ops that torch_mock runs, in one graph."""
    ptxemu.torch_mock.install()

    def step(x: torch.Tensor) -> torch.Tensor:
        sums = torch.ops.pe_test.rowsum(x * 2 + 1, True)
        of_sums = torch.ops.pe_test.rowsum(sums.view(8, 8), True)
        of_sums += 1
        return torch.cat([of_sums, sums[:1]])

    def want(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([(x * 2 + 1).view(8, -1).sum(1) + 1, (x * 2 + 1)[:1].sum(1)])

    x = torch.randn(64, 20, device="cuda")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step(x)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = step(x)
    for _ in range(3):
        new = torch.randn(64, 20)
        x.copy_(new)
        graph.replay()
        torch.cuda.synchronize()
        assert torch.allclose(out.cpu(), want(new), atol=1e-4)
    graphed = torch.cuda.make_graphed_callables(step, (x.clone(),))
    new = torch.randn(64, 20, device="cuda")
    assert torch.allclose(graphed(new).cpu(), want(new.cpu()), atol=1e-4)
    illegal = [
        lambda: step(x).sum().item(),
        torch.cuda.synchronize,
        lambda: torch.ops.pe_test.scale_relu(x, x[0], 1.0, 0.0),
    ]
    for call in illegal:
        try:
            with torch.cuda.graph(torch.cuda.CUDAGraph()):
                call()
        except Exception as error:
            assert "captur" in str(error), error
        else:
            raise SystemExit("an illegal call under capture was not caught")
    with torch.cuda.graph(torch.cuda.CUDAGraph()):
        torch.ops.pe_test.rowsum(x, False)


def training() -> None:
    """A few steps of a small network give the same losses on the device as on the CPU."""
    assert ptxemu.torch_mock.install() > 1000
    x, labels = torch.randn(6, 3, 4, 4), torch.randint(0, 4, (6,))
    losses: dict[str, list[float]] = {"cpu": [], "cuda": []}
    for device, values in losses.items():
        torch.manual_seed(1)
        net = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3, padding=1),
            torch.nn.BatchNorm2d(8),
            torch.nn.ReLU(),
            torch.nn.Flatten(),
            torch.nn.Linear(8 * 16, 4),
        ).to(device)
        optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        for _ in range(3):
            loss = F.cross_entropy(net(x.to(device)), labels.to(device))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            values.append(loss.item())
    assert torch.allclose(torch.tensor(losses["cpu"]), torch.tensor(losses["cuda"]), atol=1e-5), losses


if __name__ == "__main__":
    torch.manual_seed(0)
    if len(sys.argv) > 2:
        torch.ops.load_library(sys.argv[2])
    globals()[sys.argv[1]]()
    print("fine")
