"""On a device that the build has no kernels for: every way into them is refused, and nothing is written.

Run by test_capability.py on the stand-in device; prints each refusal on a line of its own.
"""

from __future__ import annotations

from collections.abc import Callable

import ptxemu.torch_mock
import torch

from fusedres import ops
from fusedres.ops._dispatch import serving_backends


def refused(call: Callable[[], object]) -> None:
    try:
        call()
    except RuntimeError as error:
        print(str(error).splitlines()[0], flush=True)
    else:
        raise AssertionError("it ran")


def main() -> None:
    ptxemu.torch_mock.install()
    x = torch.randn(1, 8, 2, 2).half().to("cuda", memory_format=torch.channels_last)
    w = torch.randn(8, 8, 1, 1).half().cuda()
    running = torch.full((8,), 7.0, device="cuda")
    batch = torch.ones(8, device="cuda")
    counted = torch.tensor(3, device="cuda")
    refused(lambda: ops.bn_stats(x, backend="cuda"))
    refused(lambda: torch.ops.fusedres_cuda.bn_stats(x))
    refused(lambda: ops.conv_affine_act(x, w, backend="cuda"))
    refused(
        lambda: torch.ops.fusedres_cuda.conv_affine_act(
            x, w, None, None, None, False, (1, 1), (0, 0), (1, 1), 1
        )
    )
    refused(
        lambda: torch.ops.fusedres_cuda.bn_update_running(
            [running], [running], [counted], [batch], [batch], [4], 0.1
        )
    )
    assert running.cpu().eq(7).all() and int(counted) == 3, "a refused call wrote"
    assert "cuda" not in serving_backends(x.device, x.dtype)
    print("nothing was written")


if __name__ == "__main__":
    main()
