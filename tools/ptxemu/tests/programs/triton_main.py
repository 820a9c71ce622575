"""Triton on the stand-in device: python triton_main.py CHECK..."""

import sys

import ptxemu.torch_mock
import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor


@triton.jit
def add_kernel(x, y, o, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(o + i, tl.load(x + i, mask=i < n) + tl.load(y + i, mask=i < n), mask=i < n)


@triton.jit
def bad_kernel(x, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(x + n + i, 1.0)


@triton.jit
def softmax_kernel(x, y, n, BLOCK: tl.constexpr):
    c = tl.arange(0, BLOCK)
    v = tl.load(x + tl.program_id(0) * n + c, mask=c < n, other=-float("inf"))
    v = tl.exp(v - tl.max(v, 0))
    tl.store(y + tl.program_id(0) * n + c, v / tl.sum(v, 0), mask=c < n)


@triton.autotune(
    [
        triton.Config({"BM": 32, "BN": 32, "BK": 32}, num_warps=4, num_stages=2),
        triton.Config({"BM": 64, "BN": 64, "BK": 32}, num_warps=4, num_stages=3),
        triton.Config({"BM": 64, "BN": 32, "BK": 64}, num_warps=4, num_stages=2),
    ],
    key=["M", "N", "K"],
)
@triton.jit
def matmul_kernel(A, B, C, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    rm, rn = tl.program_id(0) * BM + tl.arange(0, BM), tl.program_id(1) * BN + tl.arange(0, BN)
    acc = tl.zeros((BM, BN), dtype=tl.float32)
    for k in range(0, K, BK):
        rk = k + tl.arange(0, BK)
        a = tl.load(A + rm[:, None] * K + rk[None, :], mask=(rm[:, None] < M) & (rk[None, :] < K), other=0.0)
        b = tl.load(B + rk[:, None] * N + rn[None, :], mask=(rk[:, None] < K) & (rn[None, :] < N), other=0.0)
        acc = tl.dot(a, b, acc)
    tl.store(
        C + rm[:, None] * N + rn[None, :], acc.to(tl.bfloat16), mask=(rm[:, None] < M) & (rn[None, :] < N)
    )


@triton.jit
def hist_kernel(x, h, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.atomic_add(h + tl.load(x + i, mask=i < n, other=0), 1, mask=i < n)


@triton.jit
def tma_kernel(a, b, c, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    pm, pn = tl.program_id(0), tl.program_id(1)
    acc = tl.zeros((BM, BN), dtype=tl.float32)
    for k in range(0, K, BK):
        acc = tl.dot(a.load([pm * BM, k]), b.load([pn * BN, k]).T, acc)
    c.store([pm * BM, pn * BN], acc)


@triton.jit
def device_tma_kernel(x, y, M, N, BM: tl.constexpr, BN: tl.constexpr):
    dx = tl.make_tensor_descriptor(x, [M, N], [N, 1], [BM, BN])
    dy = tl.make_tensor_descriptor(y, [M, N], [N, 1], [BM, BN])
    i, j = tl.program_id(0) * BM, tl.program_id(1) * BN
    dy.store([i, j], dx.load([i, j]) * 2)


def cuda(*t):
    return [x.cuda() for x in t]


def check_add():
    x, y = torch.randn(1000), torch.randn(1000)
    a, b = cuda(x, y)
    o = torch.empty_like(a)
    k = add_kernel[(triton.cdiv(1000, 256),)](a, b, o, 1000, BLOCK=256)
    assert torch.equal(o.cpu(), x + y)
    o.copy_(torch.zeros(1000))
    add_kernel[(4,)](
        a,
        b,
        o,
        1000,
        BLOCK=256,
        launch_cooperative_grid=True,
        launch_pdl=torch.cuda.get_device_capability()[0] >= 9,
    )
    assert torch.equal(o.cpu(), x + y)
    assert k.n_regs > 0 and "ptxas info" in k.asm["cubin"].decode()


def check_softmax():
    x = torch.randn(7, 300)
    (a,) = cuda(x)
    o = torch.empty_like(a)
    softmax_kernel[(7,)](a, o, 300, BLOCK=512)
    assert torch.allclose(o.cpu(), x.softmax(1), rtol=1e-5)


def matmul(a, b):
    M, K, N = *a.shape, b.shape[1]
    c = torch.empty(M, N, dtype=a.dtype, device=a.device)
    matmul_kernel[lambda m: (triton.cdiv(M, m["BM"]), triton.cdiv(N, m["BN"]))](a, b, c, M, N, K)
    return c


def check_autotune():
    ptxemu.torch_mock.install(["zero_", "fill_", "median", "empty_like"])
    A, B = torch.randn(96, 128).bfloat16(), torch.randn(128, 80).bfloat16()
    c = matmul(*cuda(A, B)).cpu()
    assert torch.allclose(c.float(), A.float() @ B.float(), rtol=2e-2, atol=5e-2)
    ((best, times),) = [(matmul_kernel.best_config, matmul_kernel.configs_timings)]
    print(best, {str(k)[:30]: v for k, v in times.items()})
    assert len(times) == 3 and all(
        0 < t < 1e5 for v in times.values() for t in (v if isinstance(v, (list, tuple)) else [v])
    )
    ms = triton.testing.do_bench(lambda: matmul(*cuda(A, B)), warmup=1, rep=1)
    assert 0 < ms < 1e4, ms


def check_atomic():
    x = torch.randint(0, 10, (3000,), dtype=torch.int32)
    a, h = cuda(x, torch.zeros(10, dtype=torch.int32))
    hist_kernel[(3,)](a, h, 3000, BLOCK=1024)
    assert torch.equal(h.cpu(), torch.bincount(x, minlength=10).int())


def check_tma():
    A, B = torch.randn(100, 200).bfloat16(), torch.randn(136, 200).bfloat16()
    a, b = cuda(A, B)
    c = torch.empty(100, 136, device="cuda")
    d = [TensorDescriptor.from_tensor(t, [64, 64]) for t in (a, b, c)]
    tma_kernel[(2, 3)](*d, 200, BM=64, BN=64, BK=64)
    assert torch.allclose(c.cpu(), A.float() @ B.float().T, rtol=1e-3, atol=2e-3)


def check_device_tma():
    triton.set_allocator(lambda size, align, stream: torch.empty(size, dtype=torch.int8, device="cuda"))
    x = torch.randn(100, 136)
    (a,) = cuda(x)
    y = torch.empty_like(a)
    device_tma_kernel[(4, 5)](a, y, 100, 136, BM=32, BN=32)
    assert torch.equal(y.cpu(), x * 2)


def check_bounds():
    x = torch.empty(100, device="cuda")
    try:
        bad_kernel[(1,)](x, 100, BLOCK=128)
    except RuntimeError as e:
        assert "emulator" in str(e)
    else:
        raise AssertionError("no error")


@torch.library.triton_op("pe_tri::add", mutates_args=())
def add_op(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    o = torch.empty_like(x)
    torch.library.wrap_triton(add_kernel)[(triton.cdiv(x.numel(), 256),)](x, y, o, x.numel(), BLOCK=256)
    return o


def compiled(backend):
    ptxemu.torch_mock.install()
    f = torch.compile(lambda x, y: torch.ops.pe_tri.add(x, y).relu() * 2, fullgraph=True, backend=backend)
    x, y = torch.randn(1000), torch.randn(1000)
    for _ in range(2):
        assert torch.allclose(f(*cuda(x, y)).cpu(), (x + y).relu() * 2)


def check_aot_eager():
    compiled("aot_eager")


def check_inductor():
    compiled("inductor")
    f = torch.compile(lambda x: torch.softmax(x * 2 + 1, 1).sum(0))
    x = torch.randn(33, 70)
    assert torch.allclose(f(x.cuda()).cpu(), torch.softmax(x * 2 + 1, 1).sum(0), rtol=1e-4)


def check_reduce_overhead():
    """inductor kernels replayed from CUDA graphs; needs the caching allocator"""
    from torch._inductor.cudagraph_trees import get_container

    ptxemu.torch_mock.install()
    f = torch.compile(lambda x, w: torch.relu(x @ w) + 1, mode="reduce-overhead")
    for _ in range(4):
        x, w = torch.randn(8, 16), torch.randn(16, 8)
        assert torch.allclose(f(*cuda(x, w)).cpu(), torch.relu(x @ w) + 1, atol=1e-5)
    assert get_container(0).tree_manager.roots


if __name__ == "__main__":
    for name in sys.argv[1:]:
        torch.manual_seed(0)
        globals()["check_" + name]()
        print("fine", name)
