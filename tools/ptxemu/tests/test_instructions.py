"""Instruction classes against torch, numpy or Python integers: math, cvt, warp ops, atomics, mma."""

import math

import numpy as np
import ptxemu
import pytest
import torch

ARCHS = ["sm_80", "sm_90"]
pytestmark = pytest.mark.parametrize("arch", ARCHS)


def test_fmath(load, arch):
    x = torch.cat([torch.randn(200) * 2, torch.tensor([0.5, -1.5, 2.5, 0.0])])
    n = len(x)
    o = torch.zeros(n, 24)
    load("wide.cu", arch=arch).launch("fmath", 1, 256, [x, o, n])
    d = x.double()
    want = [
        d.sin(),
        d.cos(),
        d.exp(),
        (x.abs() + 1e-3).double().log(),
        d.tanh(),
        d.erf(),
        d.abs() ** 1.7,
        (d.abs() + 0.1).rsqrt(),
        d.abs().sqrt(),
        d / (d.abs() + 1),
        d.floor(),
        d.ceil(),
        d.trunc(),
        d.round(),
        torch.tensor([math.floor(abs(v) + 0.5) * math.copysign(1, v) for v in d.tolist()]),
        torch.fmod(d, float(np.float32(1.3))),
        d.abs().log1p(),
        d.sign() * d.abs() ** (1 / 3),
        d.exp(),
        d / 3,
        d.clamp(min=0.5),
        torch.where(x < 0, -2.0, 2.0),
        torch.lgamma(d.abs() + 1),
        (x * np.float32(1e5)).double().sin(),
    ]
    for k, w in enumerate(want):
        assert torch.allclose(o[:, k].double(), w.double(), rtol=3e-6, atol=3e-6), k


def test_dmath(load, arch):
    x = torch.randn(100, dtype=torch.float64) * 3
    o = torch.zeros(100, 10, dtype=torch.float64)
    load("wide.cu", arch=arch).launch("dmath", 1, 128, [x, o, 100])
    want = [
        x.sin(),
        x.exp(),
        (x.abs() + 1e-3).log(),
        x.abs() ** 1.7,
        (x.abs() + 0.1).rsqrt(),
        x.abs().sqrt(),
        x / (x.abs() + 1),
        x.floor(),
        x.clamp(max=0.25),
        x.tanh(),
    ]
    for k, w in enumerate(want):
        assert torch.allclose(o[:, k], w, rtol=1e-13, atol=1e-14), k


def test_cvts(load, arch):
    x = torch.cat([torch.randn(100), torch.tensor([1e-7, -1e-3, 0.0005, 30.0, -30.0])])
    n = len(x)
    o, q = torch.zeros(n, 16, dtype=torch.int32), torch.zeros(n, dtype=torch.int64)
    load("wide.cu", arch=arch).launch("cvts", 1, 128, [x, o, q, n])
    v = (x * 1000).numpy()

    def sat(t):
        return int(max(-(2**31), min(2**31 - 1, t)))

    e4 = x.clamp(-448, 448).to(torch.float8_e4m3fn)
    e5 = x.clamp(-57344, 57344).to(torch.float8_e5m2)
    for i in range(n):
        f = float(v[i])
        t = int(f)
        r = o[i].tolist()
        assert (
            r[0] == t
            and r[1] == int(abs(f))
            and r[2] == round(f)
            and r[3] == math.ceil(f)
            and r[4] == math.floor(f)
        )
        assert r[5] == ((t + 128) & 255) - 128 and r[6] == t & 65535
        h = np.uint16(r[7]).view(np.float16)
        assert (
            abs(float(h)) <= abs(f) < abs(float(np.nextafter(h, np.float16(np.copysign(np.inf, f)))))
            or f == 0
        )
        assert r[8] == int(np.float32(f).view(np.uint32)) >> 16
        assert r[9] == sat(int(np.float32(f) * np.float32(1e9)))
        assert r[10] == round(float(np.float16(f)))
        assert r[11] == int(np.float32(t).view(np.int32))
        L = int(np.float32(f) * np.float32(1e7))
        w = np.float32(L)
        w = np.nextafter(w, np.float32(0)) if abs(int(w)) > abs(L) else w
        assert r[12] == int(w.view(np.int32)) and q[i] == int(np.float32(f) * np.float32(1e6))
        assert r[13] == int(e4[i : i + 1].view(torch.uint8)) and r[14] == int(e5[i : i + 1].view(torch.uint8))
        assert np.uint16(r[15]).view(np.float16) == float(e4[i])


def test_warp_ops(load, arch):
    o = np.zeros((32, 12), "i4")
    load("wide.cu", arch=arch).launch("warp_ops", 1, 32, [o])
    for lane in range(32):
        r = o[lane].tolist()
        assert r[0] & 0xFFFFFFFF == sum(1 << k for k in range(32) if k % 3 == 0)
        assert r[1:3] == [0, 1]
        assert r[3] & 0xFFFFFFFF == sum(1 << k for k in range(32) if k // 5 == lane // 5)
        assert r[4] == 0 and r[5] == 496 and r[6] == 31 and r[9] == 32  # r[4]: full mask + 1
        assert r[7] == (lane - 3 if lane % 16 >= 3 else lane) and r[8] == lane // 8 * 8 + 5
        assert r[10] == (lane ^ 2 if lane & 1 else 240) and r[11] == (120 if lane < 16 else 376)


def test_control(load, arch):
    x = np.arange(1, 401).astype("i4")
    o = np.zeros(400, "f")
    load("wide.cu", arch=arch).launch("control", 4, 128, [x, o, 400])

    def ref(v):
        def helper(a, k):
            return a * (k & 7) + k

        m = v % 9
        if m == 7:
            c = 0
            while v > 1:
                v = 3 * v + 1 if v & 1 else v // 2
                c += 1
            return c
        return [
            1,
            v * 2,
            sum(range(min(v, 7))),
            helper(v, v >> 2),
            math.sqrt(v),
            -v,
            v ^ 12,
            0,
            helper(2, v) * 3,
        ][m]

    assert np.allclose(o, [ref(int(v)) for v in x])


def test_atomics(load, arch):
    u, s, f, d, q = np.zeros(4, "u4"), np.zeros(8, "i4"), np.zeros(8, "f"), np.zeros(1), np.zeros(2, "u8")
    h, b = torch.zeros(2).half(), torch.zeros(2).bfloat16()
    load("wide.cu", arch=arch).launch("atomics", 3, 64, [u, s, f, d, q, h, b])
    assert u.tolist() == [192, 0, 0xFFFFFFFF, 0] and s.tolist()[:7] == [-63, 63, 7, -384, 16, 16, 16]
    assert f[0] == 96 and d[0] == 48 and q.tolist() == [192 << 33, 63] and h[0] == 192 and b[0] == 192
    if arch == "sm_90":
        assert f[4:].tolist() == [192, 384, 576, 768]


def frag(mat, kind, kb):
    """pack a matrix into mma fragments; kb = elements per 32-bit register"""
    m = mat.numpy() if mat.dtype != torch.bfloat16 else mat.view(torch.int16).numpy()
    out = []
    if kind == "a":
        for kc in range(m.shape[1] // (4 * kb)):
            for half in range(2):
                out.append(
                    np.stack(
                        [
                            m[
                                (lane >> 2) + 8 * half,
                                kc * 4 * kb + (lane & 3) * kb : kc * 4 * kb + (lane & 3) * kb + kb,
                            ]
                            for lane in range(32)
                        ]
                    )
                )
    else:
        for kc in range(m.shape[0] // (4 * kb)):
            out.append(
                np.stack(
                    [
                        m[kc * 4 * kb + (lane & 3) * kb : kc * 4 * kb + (lane & 3) * kb + kb, lane >> 2]
                        for lane in range(32)
                    ]
                )
            )
    return np.ascontiguousarray(np.stack(out)).view(np.uint32).reshape(-1)


@pytest.mark.parametrize(
    "name,dt,k",
    [
        ("mma_f16_k16", torch.float16, 16),
        ("mma_bf16_k8", torch.bfloat16, 8),
        ("mma_tf32_k8", torch.float32, 8),
        ("mma_s8_k32", torch.int8, 32),
        ("mma_u8_k32", torch.uint8, 32),
        ("mma_f16acc", torch.float16, 16),
    ],
)
def test_mma(load, arch, name, dt, k):
    if dt in (torch.int8, torch.uint8):
        A, B = (
            torch.randint(0 if dt == torch.uint8 else -128, 128, (16, k)).to(dt),
            torch.randint(-128, 128, (k, 8)).to(torch.int8),
        )
        if dt == torch.uint8:
            A = torch.randint(0, 256, (16, k)).to(dt)
        C = torch.randint(-1000, 1000, (16, 8)).int()
    else:
        A, B, C = torch.randn(16, k).to(dt), torch.randn(k, 8).to(dt), torch.randn(16, 8)
        if dt == torch.float32:
            A, B = (A * 64).round() / 64, (B * 64).round() / 64
    f16 = name == "mma_f16acc"
    cc = C.half() if f16 else C
    cf = np.stack(
        [
            np.stack([cc.numpy()[(lane >> 2) + 8 * (i >> 1), 2 * (lane & 3) + (i & 1)] for lane in range(32)])
            for i in range(4)
        ]
    )
    cf = (
        np.stack([np.stack([cf[0], cf[1]], 1), np.stack([cf[2], cf[3]], 1)]).view(np.uint32).reshape(-1)
        if f16
        else cf.view(np.uint32).reshape(-1)
    )
    d = np.zeros(128, np.uint32)
    kb = 4 // A.element_size()
    load("wide.cu", arch=arch).launch(
        name, 1, 32, [frag(A, "a", kb), frag(B, "b", kb), np.ascontiguousarray(cf), d]
    )
    want = (A.double() @ B.double() + cc.double()).numpy()
    if f16:
        D = d[:64].view(np.float16).reshape(2, 32, 2)
        got = np.array([[D[r >> 3, (r & 7) * 4 + (c >> 1), c & 1] for c in range(8)] for r in range(16)])
    else:
        D = d.reshape(4, 32).view(np.int32 if A.dtype in (torch.int8, torch.uint8) else np.float32)
        got = np.array(
            [[D[(r >> 3) * 2 + (c & 1), (r & 7) * 4 + (c >> 1)] for c in range(8)] for r in range(16)]
        )
    assert np.allclose(got, want, rtol=1e-3 if f16 else 1e-5, atol=2e-2 if f16 else 1e-4)


def test_ldmatrix_trans(load, arch):
    x, o, y = np.arange(512).astype("u2"), np.zeros((5, 32), "u4"), np.zeros(256, "u2")
    load("wide.cu", arch=arch).launch("ldsm_trans", 1, 32, [x, o, y])
    m = x[:256].reshape(4, 8, 8)
    for j in range(4):
        for lane in range(32):
            assert (
                o[j, lane]
                == int(m[j, 2 * (lane & 3), lane >> 2]) | int(m[j, 2 * (lane & 3) + 1, lane >> 2]) << 16
            )
    assert np.array_equal(o[4].view("u2"), x[:64])
    if arch == "sm_90":
        assert np.array_equal(y, x[:256])


def test_printf_assert(load, arch, capfd):
    m = load("wide.cu", arch=arch)
    m.launch("says", 1, 32, [np.zeros(32, "i4")])
    assert f"thread 3 says hello  2.50 {1 << 40}" in capfd.readouterr().out
    o = np.zeros(32, "i4")
    o[9] = 1
    with pytest.raises(
        ptxemu.PtxEmuError, match=r"thread \(9,0,0\): device assertion failed: o\[threadIdx.x\] == 0"
    ):
        m.launch("says", 1, 32, [o])


def test_wide_int(load, arch):
    rng = np.random.default_rng(1)
    a, b = rng.integers(-(2**63), 2**63, 200), rng.integers(-(2**63), 2**63, 200)
    b[:50] >>= 40
    o = np.zeros((200, 10), "i8")
    load("wide.cu", arch=arch).launch("wide_int", 2, 128, [a, b, o, 200])
    M = 2**64 - 1

    def s(v):
        return ((v & M) ^ (1 << 63)) - (1 << 63)

    for i in range(200):
        x, y = int(a[i]), int(b[i])
        ux, uy = x & M, y & M
        q = abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1) if y else 0
        z = ux * uy + ux & (1 << 128) - 1
        want = [
            s(x * y),
            s(q),
            s(ux % uy) if uy else 0,
            (x * y) >> 64,
            64 - ux.bit_length(),
            bin(ux).count("1"),
            x >> (y & 63),
            s(ux >> (uy & 63)),
            (ux & -ux).bit_length(),
            s((z >> 64) ^ (z >> 3)),
        ]
        assert o[i].tolist() == want


def test_half_misc(load, arch):
    a, b = torch.randn(100).half(), torch.randn(100).half()
    o = torch.zeros(100, 12)
    load("wide.cu", arch=arch).launch("half_misc", 1, 128, [a, b, o, 100])
    x, y = a.float(), b.float()
    want = [
        (x + y).half(),
        (x * y).half(),
        (x - y).half(),
        (x / y).half(),
        x.exp().half(),
        x.abs().sqrt().half(),
        x < y,
        x >= y,
        torch.maximum(x, y),
        x.tanh().half(),
        -x,
        (x.double() * y + x).relu().half(),
    ]
    for k, w in enumerate(want):
        assert torch.allclose(
            o[:, k], w.float(), rtol=2e-3 if k in (3, 4, 5, 9) else 0, atol=1e-3 if k in (3, 4, 5, 9) else 0
        ), k


def test_wmma(load, arch):
    a, b, c = torch.randn(16, 16).half(), torch.randn(16, 16).half(), torch.zeros(16, 16)
    load("wide.cu", arch=arch).launch("wmma_gemm", 1, 32, [a, b, c])
    assert torch.allclose(c, a.float() @ b.float().T + 1, atol=1e-4)
