"""What runs on the stand-in device: ResNet-50 whole, or each of its distinct convolutions.

``python -m ptxemu run --counters FILE -- python -m benchmarks.kernels.device_program OUT network infer ...``
writes the calls, as :mod:`.recorder` notes them, to OUT.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import ptxemu.torch_mock
import torch
from torch import Tensor, nn

import fusedres
from benchmarks.kernels.recorder import record
from benchmarks.kernels.uses import USES
from benchmarks.shapes import LAYERS
from fusedres.backends.cuda import library

#: Images whose pixels make twelve tiles of 128: the last one, partly empty, no longer counts.
LAYER_PIXELS = 1536


def on_device(*shape: int) -> Tensor:
    return torch.randn(shape).bfloat16().to("cuda", memory_format=torch.channels_last)


def without_whole_bottlenecks() -> None:
    """Have a bottleneck of the CUDA back-end run as its convolutions, as it does where it does not fit."""
    torch.ops.fusedres_cuda.bottleneck_infer.default = library.bottleneck_infer


def network(task: str, composition: str, batch: int, backend: str) -> list[dict[str, Any]]:
    """One inference or training step at 224 × 224: convolutions in bf16, BatchNorm's parameters in fp32."""
    model = fusedres.resnet50()
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.to(torch.bfloat16)
    model = model.to("cuda", memory_format=torch.channels_last).train(task == "train")
    x = on_device(batch, 3, 224, 224)

    def step(x: Tensor) -> None:
        with fusedres.backend(backend), fusedres.composition(composition):
            if task == "train":
                model(x).float().mean().backward()
            else:
                with torch.inference_mode():
                    model(x)

    if task != "train":  # BatchNorm's affines are formed once a model
        step(on_device(1, 3, 32, 32))
    return record(f"fusedres_{backend}", lambda: step(x))


#: The constants of a Triton kernel that are its tile.
TILE = ("BM", "BN", "BK")


def note_compiled(notes: list[dict[str, Any]]) -> None:
    """Have Triton tell of each kernel that it launches what :class:`.facts.Note` has."""
    from triton.runtime.jit import JITFunction

    run = JITFunction.run

    def noting(self: Any, *args: Any, **kwargs: Any) -> Any:
        kernel = run(self, *args, **kwargs)
        tile = [kwargs[name] for name in TILE] if kwargs.keys() >= set(TILE) else None
        notes.append(
            {
                "kernel": kernel.name, "ptx": kernel.asm["ptx"], "shared": kernel.metadata.shared,
                "tile": tile,
            }
        )  # fmt: skip
        return kernel

    JITFunction.run = noting


def layers(pattern: str, uses: Sequence[str], backend: str, images: int | None) -> list[dict[str, Any]]:
    """Each distinct convolution in each of its uses, on ``images``, or on as many as are representative."""
    calls = []
    notes: list[dict[str, Any]] = []
    if backend == "triton":
        note_compiled(notes)
    for layer in LAYERS:
        if not fnmatch(layer.name, pattern):
            continue
        batch = images or -(-LAYER_PIXELS // layer.out_size**2)
        for name, use in USES.items():
            if not (use.serves(layer) and any(fnmatch(name, wanted) for wanted in uses)):
                continue
            x, y = on_device(*layer.in_shape(batch)), on_device(*layer.out_shape(batch))
            run = use.prepare(layer, x, y, backend)
            notes.clear()
            (call,) = record(f"fusedres_{backend}", run)
            facts = {"layer": layer.name, "use": name, "batch": batch, "backend": backend}
            calls.append({**facts, "compiled": list(notes), **call})
    return calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    what = parser.add_subparsers(dest="what", required=True)
    whole = what.add_parser("network")
    whole.add_argument("task", choices=("infer", "train"))
    whole.add_argument("--per-conv", action="store_true", help="no whole bottlenecks in a launch")
    whole.add_argument("--composition", default="stats")
    whole.add_argument("--batch", type=int, default=1)
    whole.add_argument("--backend", default="cuda")
    each = what.add_parser("layers")
    each.add_argument("pattern")
    each.add_argument("--use", action="append", help="a glob; repeat for several; default: all")
    each.add_argument("--backend", default="cuda")
    each.add_argument("--batch", type=int)
    options = parser.parse_args()
    ptxemu.torch_mock.install()
    torch.manual_seed(0)
    if options.what == "network":
        if options.per_conv:
            without_whole_bottlenecks()
        calls = network(options.task, options.composition, options.batch, options.backend)
    else:
        calls = layers(options.pattern, options.use or ["*"], options.backend, options.batch)
    options.out.write_text(json.dumps(calls))


if __name__ == "__main__":
    main()
