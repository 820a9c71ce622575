"""ONNX Runtime on its CPU provider."""

from __future__ import annotations

import torch

from benchmarks.models.job import Job, Program, Unsupported


def session(job: Job) -> Program:
    """fp32 alone: the CPU provider has no bf16 convolution."""
    if job.cell.dtype != "fp32":
        raise Unsupported("ONNX Runtime's CPU provider has no bf16 convolution")
    import onnxruntime  # type: ignore[import-untyped]

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job.cell.threads
    runtime = onnxruntime.InferenceSession(str(job.onnx_path()), options, providers=["CPUExecutionProvider"])
    feed = {runtime.get_inputs()[0].name: job.images().numpy()}

    def step() -> object:
        return runtime.run(None, feed)[0]

    return Program(step, lambda: {"logits": torch.from_numpy(runtime.run(None, feed)[0])})
