"""OpenVINO on its CPU plug-in, tuned for the latency of one request."""

from __future__ import annotations

import torch

from benchmarks.models.job import Job, Program


def request(job: Job) -> Program:
    import openvino  # type: ignore[import-untyped]

    core = openvino.Core()
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16" if job.cell.dtype == "bf16" else "f32",
        "INFERENCE_NUM_THREADS": job.cell.threads,
    }
    compiled = core.compile_model(core.read_model(str(job.onnx_path())), "CPU", settings)
    infer_request = compiled.create_infer_request()
    feed = {0: job.images().numpy()}

    def step() -> object:
        return infer_request.infer(feed, share_inputs=True, share_outputs=True)[0]

    return Program(step, lambda: {"logits": torch.from_numpy(infer_request.infer(feed)[0].copy())})
