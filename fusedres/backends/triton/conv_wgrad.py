"""The weight gradient: both operands formed as they are loaded, split over pixels, reduced in order."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fusedres.backends.triton._device import cdiv, device_facts, dot_precision, needs_int64, power_of_two
from fusedres.backends.triton._library import dense, implements, launch
from fusedres.backends.triton._runs import run_of
from fusedres.backends.triton._tiles import WGRAD_TILES, Problem, fitted, keep_best, plan, programs
from fusedres.backends.triton._wgrad_kernel import wgrad_kernel, wgrad_reduce_kernel
from fusedres.ops._shapes import Geometry, empty_nhwc, pair

#: Programs a processor should get; more splits hide latency, and each writes and reads a part.
PROGRAMS_A_PROCESSOR = 2

#: Fewest pixels worth a part of their own.
LEAST_SPAN = 1024

REDUCE_BLOCK = 512

TUNING_KEY = ("batch", "out_h", "out_w", "src_c", "out_c", "span", "CG", "KG", "R", "S", "STRIDE_H", "DIL_H")


def _splits(problem: Problem) -> int:
    """How many parts the pixels are cut into: enough programs for the device at the largest tile."""
    tiles = programs(problem, fitted(problem, WGRAD_TILES)[0])
    wanted = cdiv(PROGRAMS_A_PROCESSOR * problem.facts.processors, tiles)
    return max(1, min(wanted, problem.depth // LEAST_SPAN))


def _new_gradient(x: Tensor, w_shape: Sequence[int], channels_last: bool) -> Tensor:
    return empty_nhwc(x, w_shape) if channels_last else x.new_empty(tuple(w_shape))


@implements("conv_wgrad")
def conv_wgrad(
    x: Tensor,
    dz: Tensor,
    in_s: Tensor | None,
    in_t: Tensor | None,
    y: Tensor | None,
    p: Tensor | None,
    q: Tensor | None,
    r: Tensor | None,
    w_shape: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    channels_last: bool,
) -> Tensor:
    k, cg, taps_h, taps_w = w_shape
    kg, columns = k // groups, cg * taps_h * taps_w
    run = run_of(x, taps_w, Geometry(pair(stride), pair(padding), pair(dilation), groups))
    room = power_of_two(run.size) if run else 0
    walked = taps_h * room if run else columns
    n, _, out_h, out_w = dz.shape
    pixels = n * out_h * out_w
    if not pixels:
        return _new_gradient(x, w_shape, channels_last).zero_()
    precision = dot_precision(x.dtype)
    # A run's many short words take as many registers as an operand that is formed.
    formed = in_s is not None or p is not None or run is not None
    problem = Problem(
        "wgrad_kernel", kg, walked, pixels, groups,
        x.dtype, precision, (2 if y is not None else 1, 1), formed,
        device_facts(x.device), (taps_h, taps_w, *stride, *dilation),
    )  # fmt: skip
    splits = _splits(problem)
    chosen = plan(wgrad_kernel, problem._replace(batches=groups * splits), WGRAD_TILES, TUNING_KEY)
    # A multiple of every BK, so that only the last part can end between pixels.
    span = cdiv(cdiv(pixels, splits), 64) * 64
    splits = cdiv(pixels, span)
    dw = _new_gradient(x, w_shape, channels_last)
    parts = x.new_empty(splits, k, columns, dtype=torch.float32) if splits > 1 else dw

    def grid(meta: dict[str, int]) -> tuple[int, int, int]:
        return cdiv(kg, meta["BM"]) * cdiv(walked, meta["BN"]), groups, splits

    launch(
        chosen.kernel, grid,
        x, *dense(in_s, in_t), dz, *dense(p, r), y, *dense(q), parts,
        n, *x.shape[2:], x.shape[1], out_h, out_w, k, span,
        CG=cg, KG=kg, R=taps_h, S=taps_w, STRIDE_H=stride[0], STRIDE_W=stride[1],
        PAD_H=padding[0], PAD_W=padding[1], DIL_H=dilation[0], DIL_W=dilation[1],
        WORD=run.word if run else 0, LEAD=run.lead if run else 0, RUN=room,
        SPLIT=splits > 1, TAPS_LAST=not channels_last, WIDE=needs_int64(x, dz), PRECISION=precision,
        **chosen.meta,
    )  # fmt: skip
    keep_best(chosen)
    if splits > 1:
        # Channels last is the order of the parts: as one tap of so many channels.
        channels, taps = (columns, 1) if channels_last else (cg, taps_h * taps_w)
        launch(
            wgrad_reduce_kernel, (cdiv(dw.numel(), REDUCE_BLOCK),),
            parts, dw, splits, dw.numel(), CG=channels, TAPS=taps, BLOCK=REDUCE_BLOCK,
        )  # fmt: skip
    return dw
