"""One mode of ``fusedres compare``: the forward of a model in eval mode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

import fusedres
from fusedres.cli.console import refusals
from fusedres.cli.measure import count_kernels, interleave, planned_blocks
from fusedres.cli.networks import OURS, PLAIN_NHWC, contenders, reference
from fusedres.cli.parity import top_agreement, two_times_rule
from fusedres.cli.results import Section, Seen

#: Steps that :func:`compare_inference` reports beside its rounds.
CHECK_STEPS = 3


def compare_inference(
    plain: nn.Module,
    ours: nn.Module,
    images: Tensor,
    photos: Sequence[str],
    device: torch.device,
    dtype: torch.dtype,
    rounds: int,
    step: Callable[[], None],
    tune: bool = False,
) -> Section:
    """Parity first, then speed. ``step`` is called ``CHECK_STEPS + rounds`` times.

    Args:
        plain: torchvision's model, on the CPU in float32.
        ours: our model, likewise.
        images: (N, 3, H, W) float32.
        photos: the photographs that the first images show, one each.
        device: where to run.
        dtype: of parameters and images.
        rounds: samples a contender.
        step: called as work is done.
        tune: tune ours before anything else.
    """
    # copied outside inference mode: parameters made inside it count no versions, so that nothing can be
    # kept for them between calls
    exact = reference(plain.eval(), images, device, dtype, keep_norms=False)
    fields = contenders(plain.eval(), ours.eval(), images, device, dtype)
    if tune:
        with refusals():
            fusedres.tune(fields[OURS].model, fields[OURS].images, train=False, progress=False, table=False)
    with torch.inference_mode():
        with refusals():
            truth = exact.model(exact.images)
            step()
            outputs = {name: fields[name].model(fields[name].images) for name in (PLAIN_NHWC, OURS)}
        by_plan = planned_blocks(partial(fields[OURS].model, fields[OURS].images))
        parity = two_times_rule("logits", outputs[OURS], outputs[PLAIN_NHWC], truth)
        agreement = top_agreement(outputs[OURS], outputs[PLAIN_NHWC], truth, parity.allowed_max)
        step()
        calls = {name: partial(field.model, field.images) for name, field in fields.items()}
        kernels = {name: count_kernels(call, device) for name, call in calls.items()}
        step()
        timings, repeats = interleave(calls, rounds, device, step)
    return Section(
        mode="inference",
        parity=(parity,),
        agreement=agreement,
        seen=_what_is_seen(outputs[PLAIN_NHWC], outputs[OURS], photos),
        timings=tuple(timings),
        calls=repeats,
        kernels=kernels,
        saved={},
        planned=by_plan,
    )


def _what_is_seen(plain: Tensor, ours: Tensor, photos: Sequence[str]) -> tuple[Seen, ...]:
    tops = [side.float().softmax(dim=1).max(dim=1) for side in (plain, ours)]
    (p_value, p_index), (o_value, o_index) = [(top.values.tolist(), top.indices.tolist()) for top in tops]
    return tuple(
        Seen(photo, (p_index[i], p_value[i]), (o_index[i], o_value[i]))
        for i, photo in enumerate(photos[: len(p_index)])
    )
