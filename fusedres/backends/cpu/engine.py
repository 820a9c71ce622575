"""Our own convolutions (``csrc/cpu/conv``), and when they serve instead of oneDNN.

They apply scale and shift in fp32 to the fp32 sums, where oneDNN's fused form needs the scale folded into
the weights. Direct convolution, which takes groups and dilation in inference, and Winograd have kernels for
every CPU; AMX is where it is; training needs AVX2. A measured plan chooses, and without one the rules in
``fusedres/_heuristic.json``; ``docs/cpu.md`` has the measurements behind them.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from functools import cache, lru_cache

import torch
from torch import Tensor

from fusedres._heuristic import rule_for
from fusedres._settings import PRECISION
from fusedres.backends.cpu._onednn import onednn_serves
from fusedres.backends.cpu.convert import converted
from fusedres.ops._caches import DerivedCache
from fusedres.ops._planned import Convolution, planned_algorithm
from fusedres.ops._registry import kernel
from fusedres.ops._shapes import Geometry

Ints = Sequence[int]

_LIBRARY = torch.library.Library("fusedres_cpu", "FRAGMENT")  # type: ignore[no-untyped-call]
for _schema in (
    "conv_engine_runs(int algorithm) -> bool",
    "conv_engine_isa(int algorithm) -> int",
    "conv_pack(Tensor w, SymInt[2] stride, SymInt[2] padding, int algorithm, SymInt[2] dilation=1,"
    " SymInt groups=1) -> Tensor",
    "conv_once(Tensor x, Tensor w, Tensor? residual, SymInt[2] stride, SymInt[2] padding, int algorithm)"
    " -> Tensor",
    "conv_once_stats(Tensor x, Tensor w, SymInt[2] stride, SymInt[2] padding, int algorithm)"
    " -> (Tensor y, Tensor count, Tensor mean, Tensor m2)",
    "conv_once_reduce(Tensor dy, Tensor w, Tensor? out, Tensor? y, Tensor? s, Tensor? t, Tensor? mean,"
    " Tensor? invstd, SymInt[2] padding, int algorithm) -> (Tensor dz, Tensor sums)",
    "dgrad_strided(Tensor dy, Tensor w, Tensor? add, SymInt[4] x_shape, SymInt[2] stride, SymInt[2] padding,"
    " int algorithm) -> Tensor",
    "conv_packed(Tensor x, Tensor packed, Tensor? scale, Tensor? shift, Tensor? residual, bool relu)"
    " -> Tensor",
    "wgrad(Tensor x, Tensor dy, Tensor? in_scale, Tensor? in_shift, SymInt[4] w_shape, SymInt[2] stride,"
    " SymInt[2] padding, int algorithm, bool channels_last) -> Tensor",
    "stem_packed(Tensor x, Tensor packed, Tensor? scale, Tensor? shift) -> Tensor",
    "blocks_packed(Tensor x, Tensor[] packed, Tensor[] scales, Tensor[] shifts, int[] convs,"
    " int[] downsamples, bool rounds=False) -> Tensor",
    "avgpool_linear(Tensor x, Tensor weight, Tensor? bias) -> Tensor",
):
    _LIBRARY.define(_schema)  # type: ignore[no-untyped-call]
OPS = torch.ops.fusedres_cpu


class Algorithm(IntEnum):
    """How a convolution is done; the numbers are those of ``csrc/cpu/conv/shape.h``."""

    DIRECT_F32 = 0
    WINOGRAD_F32 = 1  # F(2x2, 3x3): rounds less than direct convolution does
    DIRECT_BF16_DOT = 2  # vdpbf16ps, or FMAs of the widened values
    DIRECT_BF16_AMX = 3
    WINOGRAD4_F32 = 4  # F(4x4, 3x3): fewer products, about twice direct convolution's error
    DIRECT_F32_AMX = 5  # each fp32 as three bf16 parts, on AMX: rounds less than FMAs do
    DIRECT2_F32_AMX = 6  # as two parts: leaves out up to 2^-15 of a product
    WINOGRAD2_F32_AMX = 7  # F(2x2, 3x3), its products of two parts
    WINOGRAD_BF16_DOT = 8  # F(2x2, 3x3) of bf16, both transforms rounded to bf16, by vdpbf16ps

    @property
    def winograd(self) -> bool:
        """Whether it takes 3x3 filters of stride 1 alone."""
        return self.name.startswith("WINOGRAD")

    @property
    def in_parts(self) -> bool:
        """Whether it multiplies bf16 parts of fp32 operands."""
        return self.name.endswith("F32_AMX")

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32 if "F32" in self.name else torch.bfloat16


#: What ``precision("fast")`` alone allows.
FAST = frozenset(
    {
        Algorithm.WINOGRAD4_F32,
        Algorithm.DIRECT2_F32_AMX,
        Algorithm.WINOGRAD2_F32_AMX,
        Algorithm.WINOGRAD_BF16_DOT,
    }
)

#: A filter's taps (R * S) that the engine takes.
MOST_TAPS = 128


@cache
def runs(algorithm: Algorithm) -> bool:
    """Whether this CPU, the build and ``FUSEDRES_CPU_ISA`` allow it."""
    return bool(OPS.conv_engine_runs(int(algorithm)))


#: Instruction sets of tiles, in the order of ``csrc/cpu/isa.h``.
_ISAS = ("portable", "avx2", "avx512")


@cache
def tile_isa(dtype: torch.dtype) -> str:
    """The instruction set of direct convolution's tiles; bf16's is "avx512" only with AVX512-BF16."""
    direct = Algorithm.DIRECT_F32 if dtype == torch.float32 else Algorithm.DIRECT_BF16_DOT
    return _ISAS[OPS.conv_engine_isa(int(direct))]


def arithmetic(dtype: torch.dtype) -> torch.dtype:
    """The type in which the engine computes on ``dtype``: fp32 for bf16 that only widening serves.

    A CPU with AVX2 alone has no instruction for bf16. Its FMAs of values widened one by one take twice as
    long as fp32's tiles and Winograd, on inputs that were widened before.
    """
    widens = dtype == torch.bfloat16 and not onednn_serves(dtype) and tile_isa(torch.float32) == "avx2"
    return torch.float32 if widens else dtype


#: What stands beside the algorithms in rules and plans.
ONEDNN = "onednn"


def choose(
    x_shape: Ints,
    dtype: torch.dtype,
    w_shape: Ints,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    groups: int,
    use: str = "infer",
) -> Algorithm | None:
    """The algorithm for this convolution, by plan or by rule; ``None`` is oneDNN's.

    ``use`` is :class:`Convolution`'s: weights are packed once in inference, for every call in training.
    """
    if not _takes(dtype, w_shape, dilation, groups, use):
        return None
    threads = torch.get_num_threads()
    geometry = tuple(stride), tuple(padding), tuple(dilation)
    shapes = tuple(x_shape), tuple(w_shape)
    convolution = Convolution(
        "cpu", use, dtype_name(dtype), *shapes, *geometry, groups, threads, PRECISION.get()
    )
    default = by_rule(convolution)[0]
    name = planned_algorithm(convolution, default)
    return named(name if name == default or _may_run(name, convolution) else default)


def _may_run(name: str, convolution: Convolution) -> bool:
    """Whether a plan may name this for the convolution: a file may hold what no tuning wrote."""
    if (algorithm := named(name)) is None:
        return True
    own: torch.dtype = getattr(torch, convolution.dtype)
    return (
        algorithm.dtype in {own, arithmetic(own)}
        and (algorithm not in FAST or convolution.precision == "fast")
        and takes(algorithm, convolution.w, convolution.stride, convolution.dilation, convolution.groups)
    )


def dtype_name(dtype: torch.dtype) -> str:
    """As rules and plans have it."""
    return str(dtype).removeprefix("torch.")


def _takes(dtype: torch.dtype, w_shape: Ints, dilation: Ints, groups: int, use: str) -> bool:
    if dtype not in (torch.float32, torch.bfloat16) or w_shape[2] * w_shape[3] > MOST_TAPS:
        return False
    if use == "infer":
        return True
    if groups != 1 or tuple(dilation) != (1, 1):
        return False
    isa = tile_isa(torch.float32)
    return isa == "avx512" or (isa == "avx2" and arithmetic(dtype) == torch.float32)


def winograd_takes(w_shape: Ints, stride: Ints, dilation: Ints, groups: int) -> bool:
    """Whether Winograd's algorithms can do this convolution."""
    one = (1, 1)
    return (tuple(w_shape[2:]), tuple(stride), tuple(dilation), groups) == ((3, 3), one, one, 1)


def takes(algorithm: Algorithm, w_shape: Ints, stride: Ints, dilation: Ints, groups: int) -> bool:
    """Whether the algorithm can do this convolution."""
    if algorithm.winograd:
        return winograd_takes(w_shape, stride, dilation, groups)
    return groups == 1 or not algorithm.in_parts


def named(name: str) -> Algorithm | None:
    """The algorithm of a rule or a plan; one that cannot run here is oneDNN's."""
    algorithm = Algorithm.__members__.get(name.upper())
    return algorithm if algorithm is not None and runs(algorithm) else None


@lru_cache(maxsize=4096)
def by_rule(convolution: Convolution) -> tuple[str, str]:
    """What the default heuristic chooses for a convolution that the engine takes, and why."""
    n, _, h, w = convolution.x
    k, c, r, s = convolution.w
    p, q = (
        size + 2 * pad - taps + 1 for size, pad, taps in zip((h, w), convolution.padding, (r, s), strict=True)
    )
    patches = n * ((p + 1) // 2) * ((q + 1) // 2)  # 2 x 2 outputs each, at stride 1
    dtype = arithmetic(getattr(torch, convolution.dtype))
    rule = rule_for(
        "cpu convolution",
        {
            "use": convolution.use,
            "dtype": dtype_name(dtype),
            "precision": convolution.precision,
            "taps": f"{r}x{s}",
            "stride": f"{convolution.stride[0]}x{convolution.stride[1]}",
            "dilation": f"{convolution.dilation[0]}x{convolution.dilation[1]}",
            "groups": convolution.groups,
            "isa": tile_isa(dtype),
            "matrix_unit": runs(Algorithm.DIRECT_BF16_AMX),
            "onednn": onednn_serves(dtype),
            "channels": c,  # of a group
            "weights": k * c,
            "map_pixels": h * w,
            "batch_pixels": n * h * w,
            "patches": patches,
            "thread_patches": patches // convolution.threads,
        },
    )
    geometry = convolution.w, convolution.stride, convolution.dilation, convolution.groups
    served = {a.name.lower() for a in Algorithm if runs(a) and takes(a, *geometry)} | {ONEDNN}
    chosen = next(name for name in rule.then if name in served)
    return chosen, rule.why


def wgrad(
    x: Tensor,
    dy: Tensor,
    in_scale: Tensor | None,
    in_shift: Tensor | None,
    w_shape: Ints,
    stride: Ints,
    padding: Ints,
    algorithm: Algorithm,
    channels_last: bool,
) -> Tensor:
    """The weight's gradient; ``in_scale`` and ``in_shift`` activate ``x`` as it is loaded."""
    own, dtype = x.dtype, algorithm.dtype
    x, dy = converted(x, dtype), converted(dy, dtype)
    affine = in_scale, in_shift
    dw: Tensor = OPS.wgrad.default(x, dy, *affine, w_shape, stride, padding, algorithm, channels_last)
    return dw.to(own)


def conv_once(
    x: Tensor, w: Tensor, residual: Tensor | None, stride: Ints, padding: Ints, algorithm: Algorithm
) -> Tensor:
    """``conv(x, w) + residual`` with weights that are packed for this call alone."""
    own, dtype = x.dtype, algorithm.dtype
    residual = None if residual is None else converted(residual, dtype)
    out: Tensor = OPS.conv_once.default(
        converted(x, dtype), w.to(dtype), residual, stride, padding, algorithm
    )
    return converted(out, own)


def conv_once_stats(
    x: Tensor, w: Tensor, stride: Ints, padding: Ints, algorithm: Algorithm
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """:func:`conv_once` and the ``bn_stats`` of its output, taken while that is near."""
    if x.dtype != algorithm.dtype:
        y = conv_once(x, w, None, stride, padding, algorithm)
        return y, *kernel("cpu", "bn_stats")(y)
    y, count, mean, m2 = OPS.conv_once_stats.default(x, w, stride, padding, algorithm)
    return y, count, mean, m2


def conv_once_reduce(
    dy: Tensor, w: Tensor, before: Sequence[Tensor | None], padding: Ints, algorithm: Algorithm
) -> tuple[Tensor, Tensor]:
    """:func:`conv_once` and ``bn_act_bwd_reduce`` of it, ``before`` = (out, y, s, t, mean, invstd)."""
    if dy.dtype != algorithm.dtype:
        dx = conv_once(dy, w, None, (1, 1), padding, algorithm)
        dz, sums, _ = kernel("cpu", "bn_act_bwd_reduce")(dx, *before, None, None, None)
        return dz, sums
    dz, sums = OPS.conv_once_reduce.default(dy, w, *before, padding, algorithm)
    return dz, sums


def dgrad_strided(
    dy: Tensor,
    w: Tensor,
    add: Tensor | None,
    x_shape: Ints,
    stride: Ints,
    padding: Ints,
    algorithm: Algorithm,
) -> Tensor:
    """``dgrad(dy, w) + add`` at a stride: a convolution of ``dy`` for each phase of dx's pixels."""
    own, dtype = dy.dtype, algorithm.dtype
    add = None if add is None else converted(add, dtype)
    dx: Tensor = OPS.dgrad_strided.default(
        converted(dy, dtype), w.to(dtype), add, x_shape, stride, padding, algorithm
    )
    return converted(dx, own)


_PACKED: DerivedCache[Tensor] = DerivedCache(2)


def packed(w: Tensor, geometry: Geometry, algorithm: Algorithm) -> Tensor:
    """``w`` in the algorithm's layout and type: an opaque uint8 tensor, kept until ``w`` changes."""
    stride, padding, dilation, groups = geometry

    def pack() -> Tensor:
        own = w.detach().to(algorithm.dtype)
        out: Tensor = OPS.conv_pack.default(own, stride, padding, algorithm, dilation, groups)
        return out

    return _PACKED.get(w, (), (algorithm, geometry), pack)


def conv(
    x: Tensor,
    w: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    residual: Tensor | None,
    relu: bool,
    geometry: Geometry,
    algorithm: Algorithm,
) -> Tensor:
    """``relu(conv(x, w) * scale + shift + residual)`` by an algorithm that :func:`choose` named.

    Where it computes in fp32 on bf16 (:func:`arithmetic`), the result is rounded once.
    """
    weights = packed(w, geometry, algorithm)
    own, dtype = x.dtype, algorithm.dtype
    if own != dtype:
        x, residual = x.to(dtype), None if residual is None else residual.to(dtype)
    out: Tensor = OPS.conv_packed.default(x, weights, scale, shift, residual, relu)
    return out.to(own)
