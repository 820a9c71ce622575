"""Every kernel op composed of plain PyTorch, in the dtype of its inputs: the yardstick of the 2× rule.

Each function takes what the op's public wrapper takes. Whatever PyTorch would write to memory between
its own kernels is rounded to the activations' dtype here too; benchmarks time the same code.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fusedres import ConvBN
from fusedres.ops._shapes import accumulate_dtype


def _wide(x: Tensor) -> Tensor:
    return x.to(accumulate_dtype(x.dtype))


def _affine(x: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
    """BatchNorm's normalisation as PyTorch runs it: fp32 inside, the result in ``x``'s dtype."""
    wide, c = _wide(x), (-1, 1, 1)
    if scale is not None:
        wide = wide * scale.to(wide.dtype).view(c)
    if shift is not None:
        wide = wide + shift.to(wide.dtype).view(c)
    return wide.to(x.dtype)


def _dy(dz: Tensor, y: Tensor | None, p: Tensor | None, q: Tensor | None, r: Tensor | None) -> Tensor:
    """BatchNorm's input gradient, written in ``dz``'s dtype."""
    if p is None:
        return dz
    wide, c = _wide(dz), (-1, 1, 1)
    dy = wide * p.to(wide.dtype).view(c)
    if y is not None and q is not None and r is not None:
        dy = dy + _wide(y) * q.to(wide.dtype).view(c) + r.to(wide.dtype).view(c)
    return dy.to(dz.dtype)


def _sums(dz: Tensor, y: Tensor | None, mean: Tensor | None, invstd: Tensor | None) -> Tensor:
    """Σdz and Σ(dz·x̂) by PyTorch's own BatchNorm backward."""
    dtype = accumulate_dtype(dz.dtype)
    if y is None or mean is None or invstd is None:
        total = _wide(dz).sum((0, 2, 3))
        return torch.stack((total, torch.zeros_like(total)))
    gamma = torch.ones(dz.shape[1], dtype=dtype, device=dz.device)
    mask = [True, True, True]
    _, dgamma, dbeta = torch.ops.aten.native_batch_norm_backward(
        dz, y, gamma, None, None, mean.to(dtype), invstd.to(dtype), True, 0.0, mask
    )
    return torch.stack((dbeta, dgamma))


def conv_affine_act(
    x: Tensor,
    w: Tensor,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    residual: Tensor | None = None,
    relu: bool = True,
    **conv: Any,
) -> Tensor:
    out = _affine(F.conv2d(x, w, **conv), scale, shift)
    if residual is not None:
        out = out + residual
    return out.relu() if relu else out


def conv_stats(
    x: Tensor, w: Tensor, in_scale: Tensor | None = None, in_shift: Tensor | None = None, **conv: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """The convolution's output with its mean and biased variance."""
    a = x if in_scale is None else _affine(x, in_scale, in_shift).relu()
    y = F.conv2d(a, w, **conv)
    return y, *bn_stats(y)


def bn_stats(y: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance."""
    var, mean = torch.var_mean(_wide(y), (0, 2, 3), correction=0)
    return mean, var


def bn_finalize(
    count: Tensor, mean: Tensor, m2: Tensor, gamma: Tensor | None, beta: Tensor | None, eps: float
) -> tuple[Tensor, ...]:
    n, weights = count.sum(), count[:, None]
    mu = (weights * mean).sum(0) / n
    var = (m2 + weights * (mean - mu).square()).sum(0) / n
    invstd = (var + eps).rsqrt()
    scale = invstd if gamma is None else gamma.to(invstd.dtype) * invstd
    shift = -mu * scale if beta is None else beta.to(invstd.dtype) - mu * scale
    return mu, var, invstd, scale, shift


def bn_update_running(
    running_mean: Tensor,
    running_var: Tensor,
    num_batches_tracked: Tensor | None,
    mean: Tensor,
    var: Tensor,
    n: int,
    momentum: float | None,
) -> tuple[Tensor, ...]:
    """The new running statistics; nothing is written in place."""
    batches = None if num_batches_tracked is None else num_batches_tracked + 1
    factor = 1.0 / batches.item() if momentum is None and batches is not None else momentum
    assert factor is not None
    new = [
        ((1 - factor) * old.to(batch.dtype) + factor * batch).to(old.dtype)
        for old, batch in ((running_mean, mean), (running_var, var * (n / max(n - 1, 1))))
    ]
    return (*new,) if batches is None else (*new, batches)


def affine_add_act(
    a: Tensor,
    sa: Tensor,
    ta: Tensor,
    b: Tensor | None = None,
    sb: Tensor | None = None,
    tb: Tensor | None = None,
    relu: bool = True,
) -> Tensor:
    out = _affine(a, sa, ta)
    if b is not None:
        out = out + _affine(b, sb, tb)
    return out.relu() if relu else out


def affine_act_maxpool(y: Tensor, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """The pooled map, and each maximum's place in its window."""
    out, flat = F.max_pool2d(_affine(y, s, t).relu(), 3, 2, 1, return_indices=True)
    row = flat // y.shape[3] - (torch.arange(out.shape[2], device=y.device)[:, None] * 2 - 1)
    column = flat % y.shape[3] - (torch.arange(out.shape[3], device=y.device) * 2 - 1)
    return out, (3 * row + column).to(torch.uint8)


def affine_act_maxpool_bwd(
    dout: Tensor, index: Tensor, y: Tensor, s: Tensor, t: Tensor, mean: Tensor, invstd: Tensor
) -> tuple[Tensor, Tensor]:
    h, w = y.shape[2:]
    row = index.long() // 3 + torch.arange(dout.shape[2], device=y.device)[:, None] * 2 - 1
    column = index.long() % 3 + torch.arange(dout.shape[3], device=y.device) * 2 - 1
    flat = (row * w + column).contiguous()
    activated = _affine(y, s, t)
    scattered = torch.ops.aten.max_pool2d_with_indices_backward(
        dout.contiguous(), activated.contiguous(), [3, 3], [2, 2], [1, 1], [1, 1], False, flat
    )
    assert scattered.shape[2:] == (h, w)
    dz = scattered * (activated > 0)
    return dz, _sums(dz, y, mean, invstd)


def bn_act_bwd_reduce(
    dout: Tensor,
    out: Tensor | None = None,
    y: Tensor | None = None,
    s: Tensor | None = None,
    t: Tensor | None = None,
    mean: Tensor | None = None,
    invstd: Tensor | None = None,
    y2: Tensor | None = None,
    mean2: Tensor | None = None,
    invstd2: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    activation = out if out is not None else _affine(y, s, t) if y is not None and s is not None else None
    dz = dout if activation is None else dout * (activation > 0)
    sums = _sums(dz, y, mean, invstd)
    sums2 = sums.new_empty(0) if y2 is None else _sums(dz, y2, mean2, invstd2)
    return (dz if activation is not None else dout.new_empty(0)), sums, sums2


def bn_bwd_finalize(
    sums: Tensor, gamma: Tensor | None, mean: Tensor, invstd: Tensor, n: int, frozen: bool = False
) -> tuple[Tensor, ...]:
    dbeta, dgamma = sums.view(-1, 2, sums.shape[1]).sum(0)
    p = invstd if gamma is None else gamma.to(invstd.dtype) * invstd
    if frozen:
        return dgamma, dbeta, p, torch.zeros_like(p), torch.zeros_like(p)
    q = -p * invstd * dgamma / max(n, 1)
    return dgamma, dbeta, p, q, -p * dbeta / max(n, 1) - q * mean


def bn_act_bwd_apply(
    dz: Tensor,
    y: Tensor,
    p: Tensor,
    q: Tensor,
    r: Tensor,
    y2: Tensor | None = None,
    p2: Tensor | None = None,
    q2: Tensor | None = None,
    r2: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    return _dy(dz, y, p, q, r), dz.new_empty(0) if y2 is None else _dy(dz, y2, p2, q2, r2)


def conv_dgrad(
    dz: Tensor,
    w: Tensor,
    y: Tensor | None = None,
    p: Tensor | None = None,
    q: Tensor | None = None,
    r: Tensor | None = None,
    add: Tensor | None = None,
    prev_y: Tensor | None = None,
    prev_s: Tensor | None = None,
    prev_t: Tensor | None = None,
    prev_mean: Tensor | None = None,
    prev_invstd: Tensor | None = None,
    *,
    x_shape: tuple[int, ...],
    **conv: Any,
) -> tuple[Tensor, Tensor]:
    dx = torch.nn.grad.conv2d_input(x_shape, w, _dy(dz, y, p, q, r), **conv)
    if add is not None:
        dx = dx + add
    if prev_y is None:
        return dx, _wide(dx).new_empty(0)
    dx = dx * (_affine(prev_y, prev_s, prev_t) > 0)
    return dx, _sums(dx, prev_y, prev_mean, prev_invstd)


def conv_wgrad(
    x: Tensor,
    dz: Tensor,
    in_s: Tensor | None = None,
    in_t: Tensor | None = None,
    y: Tensor | None = None,
    p: Tensor | None = None,
    q: Tensor | None = None,
    r: Tensor | None = None,
    *,
    w_shape: tuple[int, ...],
    channels_last: bool = False,
    **conv: Any,
) -> Tensor:
    a = x if in_s is None else _affine(x, in_s, in_t).relu()
    dw = torch.nn.grad.conv2d_weight(a, w_shape, _dy(dz, y, p, q, r), **conv)
    return dw.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def bottleneck_infer(
    x: Tensor,
    w1: Tensor,
    s1: Tensor,
    t1: Tensor,
    w2: Tensor,
    s2: Tensor,
    t2: Tensor,
    w3: Tensor,
    s3: Tensor,
    t3: Tensor,
    wd: Tensor | None = None,
    sd: Tensor | None = None,
    td: Tensor | None = None,
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
) -> Tensor:
    a1 = conv_affine_act(x, w1, s1, t1)
    a2 = conv_affine_act(a1, w2, s2, t2, stride=stride, padding=dilation, dilation=dilation, groups=groups)
    skip = x if wd is None else conv_affine_act(x, wd, sd, td, relu=False, stride=stride)
    return conv_affine_act(a2, w3, s3, t3, skip)


# --- whole blocks, as nn.Conv2d, nn.BatchNorm2d and nn.ReLU run them ------------------------------------


def conv_bn(x: Tensor, layer: ConvBN, training: bool, **conv: Any) -> Tensor:
    momentum = layer.momentum
    if training and layer.num_batches_tracked is not None:
        layer.num_batches_tracked.add_(1)
        if momentum is None:
            momentum = 1.0 / layer.num_batches_tracked.item()
    y = F.conv2d(x, layer.weight, **conv)
    batch_stats = training or layer.running_mean is None
    return F.batch_norm(
        y,
        layer.running_mean,
        layer.running_var,
        layer.bn_weight,
        layer.bn_bias,
        batch_stats,
        momentum or 0.0,
        layer.eps,
    )


def conv_bn_act(
    x: Tensor,
    conv: ConvBN,
    residual: Tensor | None = None,
    *,
    training: bool = False,
    act: str = "relu",
    **geometry: Any,
) -> Tensor:
    out = conv_bn(x, conv, training, **geometry)
    if residual is not None:
        out = out + residual
    return out.relu() if act == "relu" else out


def basic_block(
    x: Tensor,
    conv1: ConvBN,
    conv2: ConvBN,
    downsample: ConvBN | None = None,
    *,
    stride: int = 1,
    training: bool = False,
) -> Tensor:
    out = conv_bn(x, conv1, training, stride=stride, padding=1).relu()
    out = conv_bn(out, conv2, training, padding=1)
    skip = x if downsample is None else conv_bn(x, downsample, training, stride=stride)
    return (out + skip).relu()


def bottleneck(
    x: Tensor,
    conv1: ConvBN,
    conv2: ConvBN,
    conv3: ConvBN,
    downsample: ConvBN | None = None,
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    training: bool = False,
) -> Tensor:
    out = conv_bn(x, conv1, training).relu()
    out = conv_bn(
        out, conv2, training, stride=stride, padding=dilation, dilation=dilation, groups=groups
    ).relu()
    out = conv_bn(out, conv3, training)
    skip = x if downsample is None else conv_bn(x, downsample, training, stride=stride)
    return (out + skip).relu()


def stem(x: Tensor, conv: ConvBN, *, stride: int = 2, padding: int = 3, training: bool = False) -> Tensor:
    return F.max_pool2d(conv_bn(x, conv, training, stride=stride, padding=padding).relu(), 3, 2, 1)
