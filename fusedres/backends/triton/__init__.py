"""The Triton back-end: every kernel op as a Triton kernel, on any GPU that Triton compiles for.

Nothing here needs a GPU or Triton to be imported. Without Triton the kernels are not defined, and the
back-end says so. Under ``TRITON_INTERPRET=1`` (set before the process imports Triton) the kernels run on
CPU tensors in Triton's interpreter: slow, and what the tests use where there is no GPU.
"""

from __future__ import annotations

from importlib.util import find_spec

import torch

from fusedres.ops._dispatch import Backend, register_backend

DTYPES = (torch.float16, torch.bfloat16, torch.float32)

if find_spec("triton") is None:

    def unavailable() -> str | None:
        """Triton is missing."""
        return "Triton is not installed; `pip install triton` brings it (torch's GPU builds depend on it)"

    def cannot_serve(device: torch.device, dtype: torch.dtype) -> str | None:
        """Nothing is served without Triton."""
        return unavailable()

else:
    from fusedres.backends.triton import (  # noqa: F401  (each registers its op)
        affine_act_maxpool,
        affine_add_act,
        bn_act_bwd_apply,
        bn_act_bwd_reduce,
        bn_bwd_finalize,
        bn_finalize,
        bn_stats,
        bn_update_running,
        bottleneck_infer,
        conv_affine_act,
        conv_dgrad,
        conv_stats,
        conv_wgrad,
    )
    from fusedres.backends.triton._device import INTERPRETED

    def unavailable() -> str | None:
        """Why no kernel can run in this process, or ``None``."""
        if INTERPRETED or torch.cuda.is_available():
            return None
        return "torch sees no GPU (TRITON_INTERPRET=1 runs the kernels on the CPU, for tests)"

    def cannot_serve(device: torch.device, dtype: torch.dtype) -> str | None:
        """Why tensors of ``dtype`` on ``device`` cannot be taken, or ``None``."""
        if dtype not in DTYPES:
            return f"Triton kernels take float16, bfloat16 and float32; got {dtype}"
        if INTERPRETED:
            if device.type != "cpu":
                return f"Triton's interpreter takes CPU tensors; got {device}"
            if dtype == torch.bfloat16:
                return "Triton's interpreter computes bfloat16 products wrongly"
            return None
        return None if device.type == "cuda" else f"Triton kernels run on GPU tensors; got {device}"


register_backend(Backend("triton", unavailable=unavailable, cannot_serve=cannot_serve))
