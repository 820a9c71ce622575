"""What the CUDA kernels refuse, each by the argument's name, and that awkward addresses are served."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import fusedres.backends.cuda._device
from fusedres import ops
from fusedres.ops._dispatch import BACKENDS
from tests._parity import assert_same_bits
from tests.conftest import device_of

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _cuda() -> None:
    if reason := BACKENDS["cuda"].refusal(device_of("cuda"), torch.float32):
        pytest.skip(f"back-end 'cuda': {reason}")


def activation(*shape: int, dtype: torch.dtype = torch.float16) -> Tensor:
    return torch.randn(shape).to(dtype).to("cuda", memory_format=torch.channels_last)


def vector(channels: int) -> Tensor:
    return torch.randn(channels).cuda()


def run(a: Tensor, s: Tensor, t: Tensor, b: Tensor | None = None) -> Tensor:
    """The kernel op itself, without its wrapper."""
    out: Tensor = torch.ops.fusedres_cuda.affine_add_act(a, s, t, b, None, None, True)
    return out


def moments(y: Tensor, backend: str) -> tuple[Tensor, Tensor]:
    """Mean and variance; how many tiles they come from is each path's own."""
    mean, var, *_ = ops.bn_finalize(*ops.bn_stats(y, backend=backend), backend=backend)
    return mean, var


class TestRefused:
    def test_tensors_on_the_cpu(self) -> None:
        with pytest.raises(RuntimeError, match=r"back-end 'cuda' cannot serve.*on a GPU; got cpu"):
            ops.bn_stats(torch.ones(1, 8, 2, 2), backend="cuda")
        with pytest.raises(NotImplementedError, match=r"fusedres_cuda::bn_stats.*CPU"):
            torch.ops.fusedres_cuda.bn_stats(torch.ones(1, 8, 2, 2))

    def test_one_tensor_on_the_cpu(self) -> None:
        a = activation(2, 8, 3, 3)
        with pytest.raises(RuntimeError, match="affine_add_act: `b` must be on a CUDA device; got cpu"):
            run(a, vector(8), vector(8), a.cpu())
        with pytest.raises(RuntimeError, match="affine_add_act: `ta` must be on cuda:0; got cpu"):
            run(a, vector(8), vector(8).cpu())

    def test_another_dtype(self) -> None:
        with pytest.raises(RuntimeError, match=r"must be float16, bfloat16 or float32.*got Double"):
            run(activation(2, 8, 3, 3, dtype=torch.float64), vector(8), vector(8))
        with pytest.raises(RuntimeError, match="affine_add_act: `b` must be Half; got BFloat16"):
            run(activation(2, 8, 3, 3), vector(8), vector(8), activation(2, 8, 3, 3, dtype=torch.bfloat16))
        with pytest.raises(RuntimeError, match="affine_add_act: `sa` must be floating; got Int"):
            run(activation(2, 8, 3, 3), vector(8).int(), vector(8))

    def test_another_layout(self) -> None:
        a = activation(2, 8, 3, 3)
        with pytest.raises(RuntimeError, match=r"`a` must be channels_last; got shape \(2, 8, 3, 3\)"):
            run(a.contiguous(), vector(8), vector(8))
        with pytest.raises(RuntimeError, match=r"`a` must be channels_last; got shape \(2, 8, 3, 2\)"):
            run(a[..., :2], vector(8), vector(8))

    def test_another_shape(self) -> None:
        a = activation(2, 8, 3, 3)
        with pytest.raises(RuntimeError, match=r"`b` must have shape \(2, 8, 3, 3\); got \(2, 8, 3, 4\)"):
            run(a, vector(8), vector(8), activation(2, 8, 3, 4))
        with pytest.raises(RuntimeError, match=r"`sa` must have shape \(8\); got \(7\)"):
            run(a, vector(7), vector(8))

    def test_a_gpu_that_the_build_lacks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        reason = "the build has no kernels for compute capability 7.5"
        monkeypatch.setattr(fusedres.backends.cuda._device, "lacks_kernels", lambda index: reason)
        with pytest.raises(RuntimeError, match=reason):
            ops.bn_stats(activation(1, 8, 2, 2), backend="cuda")

    def test_a_launch_that_fails(self) -> None:
        """More blocks than a grid has: the error of the call that launched, and not of the next."""
        channels = 2**16 * 256 + 1
        a, ones = activation(1, channels, 1, 1), torch.ones(channels).cuda()
        with pytest.raises(
            RuntimeError, match=r"affine_add_act: launch failed: cudaErrorInvalidConfiguration"
        ):
            run(a, ones, ones)
        assert run(activation(1, 8, 2, 2), vector(8), vector(8)).shape == (1, 8, 2, 2)


class TestServed:
    @pytest.mark.parametrize("channels", [8, 10, 64])
    def test_views_that_do_not_start_on_16_bytes(self, channels: int) -> None:
        """A slice along N is dense; where its images have an odd number of bytes, values go one by one."""
        storage = torch.randn(2 * channels * 35 + 1).half().cuda()
        odd = storage[1:].view(2, 7, 5, channels).permute(0, 3, 1, 2)
        assert odd.data_ptr() % 16 == 2
        s, t, even = vector(channels), vector(channels), odd.clone()
        assert_same_bits(run(odd, s, t, odd), run(even, s, t, even), "affine_add_act")
        for o, e in zip(moments(odd, "cuda"), moments(odd, "reference"), strict=True):
            torch.testing.assert_close(o, e, rtol=1e-5, atol=1e-6)

    def test_slices(self) -> None:
        """The wrapper copies what is not dense, and takes a dense slice as it is."""
        a, s, t = activation(4, 8, 7, 5), vector(8), vector(8)
        for view in (a[1:3], a[:, :, 1:], a[..., :3], a[::2]):
            ours = ops.affine_add_act(view, s, t, backend="cuda")
            expected = ops.affine_add_act(view, s, t, backend="reference")
            assert ours.is_contiguous(memory_format=torch.channels_last)
            torch.testing.assert_close(ours, expected, rtol=2**-10, atol=2**-20)

    def test_strided_vectors(self) -> None:
        a, s, t = activation(2, 8, 3, 3), vector(16)[::2], vector(9)[1:]
        assert_same_bits(run(a, s, t), run(a, s.clone(), t.clone()), "affine_add_act")
