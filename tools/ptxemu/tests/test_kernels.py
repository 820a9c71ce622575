"""Kernels that nvcc compiles: values, counters, and the bugs that the checks must find."""

import numpy as np
import ptxemu
import pytest
import torch
import torch.nn.functional as F

ARCHS = ["sm_80", "sm_90"]


@pytest.mark.parametrize("n", [1, 31, 1000, 4097])
@pytest.mark.parametrize("arch", ARCHS)
def test_vadd(load, n, arch):
    a, b, c = np.random.rand(n).astype("f"), np.random.rand(n).astype("f"), np.zeros(n, "f")
    m = load("basic.cu", arch=arch)
    r = m.launch("vadd", (n + 255) // 256, 256, [a, b, c, n])
    assert np.array_equal(c, a + b)
    assert r["ld_global_bytes"] == 8 * n and r["st_global_bytes"] == 4 * n
    assert r["dram_write_bytes"] <= 4 * n + 64


def test_vadd_oob_caught(load):
    n = 1000
    a, b, c = (np.zeros(n, "f") for _ in range(3))
    with pytest.raises(
        ptxemu.PtxEmuError, match=r"vadd, PTX line \d+ \(basic.cu:\d+\), cta .* thread .*out of bounds"
    ):
        load("basic.cu", "BUG_OOB", only=("vadd",)).launch("vadd", 4, 256, [a, b, c, n])


def test_reduce(load):
    x, o = np.random.rand(10007).astype("f"), np.zeros(1, "f")
    load("basic.cu").launch("reduce", 7, 256, [x, o, len(x)], race=True, check_init=True)
    assert abs(o[0] - x.sum()) < 1


def test_reduce_missing_sync(load):
    x, o = np.random.rand(1007).astype("f"), np.zeros(1, "f")
    m = load("basic.cu", "BUG_SYNC", only=("reduce",))
    m.launch("reduce", 1, 256, [x, o, len(x)])
    assert not abs(o[0] - x.sum()) < 1  # the poison reaches the result
    with pytest.raises(ptxemu.PtxEmuError, match=r"race|uninitialised"):
        m.launch("reduce", 1, 256, [x, o, len(x)], race=True, check_init=True)


def test_matmul(load):
    M, N, K = 50, 37, 70
    A, B, C = np.random.rand(M, K).astype("f"), np.random.rand(K, N).astype("f"), np.zeros((M, N), "f")
    r = load("basic.cu").launch("matmul", (3, 4), (16, 16), [A, B, C, M, N, K], race=True)
    assert np.allclose(C, A @ B, rtol=1e-5)
    assert r["barriers"] == 12 * 10


def test_matmul_missing_sync(load):
    M, N, K = 32, 32, 64
    A, B, C = np.random.rand(M, K).astype("f"), np.random.rand(K, N).astype("f"), np.zeros((M, N), "f")
    with pytest.raises(ptxemu.PtxEmuError, match=r"shared memory race"):
        load("basic.cu", "BUG_SYNC2", only=("matmul",)).launch(
            "matmul", (2, 2), (16, 16), [A, B, C, M, N, K], race=True
        )


def test_welford(load):
    rows, C = 500, 48
    x = (torch.randn(rows, C) * 2 + 3).bfloat16()
    st, lock = torch.zeros(C, 3), torch.zeros(C, dtype=torch.int32)
    load("basic.cu").launch("welford", 5, (C, 4), [x, st, lock, rows, C], dynamic_smem=C * 4 * 12, race=True)
    xf = x.double()
    assert torch.all(st[:, 0] == rows)
    assert torch.allclose(st[:, 1].double(), xf.mean(0), atol=1e-5)
    assert torch.allclose(st[:, 2].double() / rows, xf.var(0, unbiased=False), rtol=1e-4)


def narrow(x, dtype):
    """Double to 16-bit float with a single rounding, through round-to-odd in f32 (torch rounds twice)."""
    f = x.float()
    u = f.view(torch.int32)
    odd = u + torch.where(f.double().abs() > x.abs(), -1, 1).int()
    return torch.where((f.double() != x) & (u & 1 == 0), odd, u).view(torch.float32).to(dtype)


def test_half_ops(load):
    n = 1000
    a, b = torch.randn(n, 2).half(), torch.randn(n, 2).half()
    d = torch.randn(n, 2).bfloat16()
    c, e, f = torch.zeros_like(a), torch.zeros_like(d), torch.zeros(4)
    load("basic.cu").launch("half_ops", 4, 256, [a, b, c, d, e, f, n])
    want = narrow(a.double() * b.double() + torch.maximum(a, b).double(), torch.float16)
    assert torch.equal(c, want)
    sq = (d.float() * d.float()).bfloat16()
    # the compiler may contract mul+add into one fma
    fused = narrow(d.double() * d.double() + d.double(), torch.bfloat16)
    assert torch.equal(e, narrow(sq.double() + d.double(), torch.bfloat16)) or torch.equal(e, fused)
    assert abs(f[0] - a[:, 0].float().sum()) < 1e-2
    assert f[1:2].view(torch.float16).tolist() == [1000, 1000]


def test_int_ops(load):
    n = 300
    rng = np.random.default_rng(0)
    a, b = rng.integers(-(2**31), 2**31, n).astype("i4"), rng.integers(-(2**31), 2**31, n).astype("i4")
    a[:4], b[:4] = [0, -1, 7, -8], [0, 1, -2, 3]
    o = np.zeros((n, 16), "i8")
    load("basic.cu").launch("int_ops", 2, 256, [a, b, o, n])
    for i in range(n):
        x, y = int(a[i]), int(b[i])
        ux, uy = x & 0xFFFFFFFF, y & 0xFFFFFFFF
        q = (abs(x) // abs(y)) * (1 if (x < 0) == (y < 0) else -1) if y else 0
        assert o[i, 0] == q and o[i, 1] == (x - q * y if y else 0) and o[i, 2] == (ux // uy if uy else 0)
        assert o[i, 3] == bin(ux).count("1") and o[i, 4] == 32 - ux.bit_length()
        br = int(f"{ux:032b}"[::-1], 2)
        assert o[i, 5] & 0xFFFFFFFF == br and o[i, 6] == (x * y) >> 32 and o[i, 7] == x * y
        assert o[i, 8] == (0 if not ux else (ux & -ux).bit_length())
        assert o[i, 9] == (((uy << 32 | ux) << 7) >> 32) & 0xFFFFFFFF
        bt = [ux >> 8 * k & 255 for k in range(4)] + [uy >> 8 * k & 255 for k in range(4)]
        assert o[i, 10] & 0xFFFFFFFF == bt[0] | bt[4] << 8 | bt[1] << 16 | bt[5] << 24
        z = y | 1
        assert o[i, 11] == (abs(x * y) // abs(z)) * (1 if (x * y < 0) == (z < 0) else -1)
        assert o[i, 12] == (ux & 255) + ((y & 0xFFFF) ^ 0x8000) - 0x8000
        assert int(o[i, 13]) & (2**64 - 1) == ((ux << 20) * (uy << 20)) >> 64

        def s8(v, k):
            return ((v >> 8 * k & 255) ^ 128) - 128

        assert o[i, 14] == 5 + sum(s8(ux, k) * s8(uy, k) for k in range(4))
        assert o[i, 15] & 0xFFFFFFFF == ((x >> (y & 31)) ^ (ux << (uy & 31))) & 0xFFFFFFFF


def test_divergent_barrier(load):
    with pytest.raises(ptxemu.PtxEmuError, match=r"divergent barrier|deadlock"):
        load("basic.cu").launch("divergent_bar", 1, 64, [np.zeros(64, "i4")])


def test_deadlock(load):
    with pytest.raises(ptxemu.PtxEmuError, match=r"deadlock"):
        load("basic.cu").launch("deadlock", 1, 64, [np.zeros(64, "i4")])


def test_misaligned(load):
    with pytest.raises(ptxemu.PtxEmuError, match=r"misaligned store of 8 bytes"):
        load("basic.cu").launch("misaligned", 1, 32, [np.zeros(128, "f")])


def test_bank_conflict_counter(load):
    r = load("basic.cu").launch("conflict", 1, 32, [np.zeros(256, "f")])
    assert r["ld_shared_waves_per_request"] == 32 or r["ld_shared_wavefronts"] >= 32 * 8
    assert r["st_shared_waves_per_request"] == 1
    assert r["st_coalescing"] == 4 / 32


SMEM = 3 * (64 + 64) * 32 * 2


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("shape", [(64, 64, 32), (100, 72, 136), (200, 130, 256)])
def test_gemm(load, shape, arch):
    M, N, K = shape
    A, B, C = torch.randn(M, K).bfloat16(), torch.randn(N, K).bfloat16(), torch.zeros(M, N)
    r = load("gemm.cu", arch=arch).launch(
        "gemm", ((M + 63) // 64, (N + 63) // 64), 128, [A, B, C, M, N, K], dynamic_smem=SMEM, race=True
    )
    assert torch.allclose(C, A.float() @ B.float().T, rtol=1e-4, atol=1e-3)
    assert r["mma"] == -(-M // 64) * -(-N // 64) * -(-K // 32) * 64
    assert r["ldmatrix_waves_per_request"] == 1  # swizzle is conflict free


def test_gemm_missing_wait(load):
    M = N = K = 64
    A, B, C = torch.randn(M, K).bfloat16(), torch.randn(N, K).bfloat16(), torch.zeros(M, N)
    load("gemm.cu", "BUG_WAIT").launch("gemm", (1, 1), 128, [A, B, C, M, N, K], dynamic_smem=SMEM)
    assert torch.isnan(C).any()


def test_gemm_wrong_ldmatrix_layout(load):
    M = N = K = 64
    A, B, C = torch.randn(M, K).bfloat16(), torch.randn(N, K).bfloat16(), torch.zeros(M, N)
    load("gemm.cu", "BUG_LAYOUT").launch("gemm", (1, 1), 128, [A, B, C, M, N, K], dynamic_smem=SMEM)
    assert not torch.allclose(C, A.float() @ B.float().T, rtol=1e-2, atol=1e-1)


def test_smem_too_small(load):
    M = N = K = 64
    A, B, C = torch.randn(M, K).bfloat16(), torch.randn(N, K).bfloat16(), torch.zeros(M, N)
    with pytest.raises(ptxemu.PtxEmuError, match=r"shared offset .* out of bounds"):
        load("gemm.cu").launch("gemm", (1, 1), 128, [A, B, C, M, N, K], dynamic_smem=SMEM // 2)


@pytest.mark.parametrize(
    "cfg",
    [
        (1, 8, 9, 32, 40, 3, 1, 1, True, True),
        (2, 11, 7, 64, 64, 1, 2, 0, False, False),
        (1, 14, 14, 32, 72, 3, 2, 1, True, False),
    ],
)
def test_conv(load, cfg):
    n, h, w, c, k, r, st, pad, relu, res = cfg
    x, f = torch.randn(n, c, h, w).bfloat16(), (torch.randn(k, c, r, r) / (c * r * r) ** 0.5).bfloat16()
    sc, bi = torch.rand(k) + 0.5, torch.randn(k)
    want = F.conv2d(x.float(), f.float(), stride=st, padding=pad)
    oh, ow = want.shape[2:]
    rs = torch.randn(n, oh, ow, k).bfloat16()
    want = want.permute(0, 2, 3, 1) * sc + bi + (rs.float() if res else 0)
    want = want.relu() if relu else want
    xn, fn, y = (
        x.permute(0, 2, 3, 1).contiguous(),
        f.permute(0, 2, 3, 1).contiguous(),
        torch.full((n, oh, ow, k), float("nan")).bfloat16(),
    )
    M = n * oh * ow
    load("gemm.cu").launch(
        "conv",
        ((M + 63) // 64, (k + 63) // 64),
        128,
        [xn, fn, sc, bi, rs if res else None, y, n, h, w, c, k, r, r, st, pad, oh, ow, int(relu)],
        dynamic_smem=SMEM,
    )
    assert torch.allclose(y.float(), want, rtol=2e-2, atol=2e-2)


def test_use_after_free(load):
    from ptxemu.abi import register_memory, unregister_memory

    _a, b, c = (torch.zeros(256) for _ in range(3))
    big = torch.zeros(1 << 16)
    register_memory(big.data_ptr(), big.nbytes)
    unregister_memory(big.data_ptr())
    with pytest.raises(ptxemu.PtxEmuError, match=r"freed allocation"):
        load("basic.cu").launch("vadd", 1, 256, [big.data_ptr() + 4096, b, c, 256])


def test_random_schedule(load):
    x, o = np.random.rand(3000).astype("f"), np.zeros(1, "f")
    for s in range(1, 4):
        o[:] = 0
        load("basic.cu").launch("reduce", 3, 128, [x, o, len(x)], seed=s)
        assert abs(o[0] - x.sum()) < 0.5


@pytest.mark.parametrize("seed", [0, 5])
def test_cooperative(load, seed):
    a = torch.arange(160, dtype=torch.int32)
    want = a.roll(-32 * 3) + 3
    load("coop.cu").launch("ring", 5, 32, [a, 160, 3], cooperative=True, seed=seed)
    assert torch.equal(a, want)
    with pytest.raises(ptxemu.PtxEmuError, match=r"trap"):
        load("coop.cu").launch("ring", 5, 32, [a, 160, 3])
