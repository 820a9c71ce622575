"""Every Triton kernel compiled ahead of time, for devices this machine need not have.

Held to: no spills, shared memory within the device's limit, the matrix instructions of the architecture.
What is compiled is what the host code launches for ResNet-50's layers (on meta tensors), so the tiles are
those of the heuristic; ``slow`` goes through the whole list of tiles on every architecture, in all numerics.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

if importlib.util.find_spec("triton") is None:
    pytest.skip("Triton is not installed", allow_module_level=True)

from torch._library.triton import set_wrap_triton_enabled
from triton.backends.compiler import GPUTarget

from fusedres.backends.triton import (
    _conv,
    affine_act_maxpool,
    affine_add_act,
    bn_act_bwd_apply,
    bn_act_bwd_reduce,
    bn_bwd_finalize,
    bn_finalize,
    bn_stats,
    bn_update_running,
    conv_affine_act,
    conv_dgrad,
    conv_stats,
    conv_wgrad,
)
from fusedres.backends.triton._tiles import CONV_TILES, WGRAD_TILES, Tile
from tests.triton._ahead import (
    DEVICES,
    HIP,
    HIP_FACTS,
    Launch,
    compiled,
    intercept,
    registers_and_stack,
    resources,
)

BATCH = 64

#: What must be in the text of a half-precision GEMM. 12.0 has no warp-group instructions.
MATRIX_INSTRUCTION = {80: "mma.sync", 90: "wgmma.mma_async", 100: "tcgen05.mma", 120: "mma.sync"}

#: Fewer rows than a warp group (9.0) or a tensor-memory tile (10.0) takes: mma.sync serves these.
WARP_GROUP_ROWS = 64


class Layer(NamedTuple):
    """A convolution of ResNet-50: channels, filters, kernel, stride, input size."""

    name: str
    c: int
    k: int
    r: int
    stride: int
    size: int
    groups: int = 1


LAYERS = (
    Layer("layer1_conv2", 64, 64, 3, 1, 56),
    Layer("stem", 3, 64, 7, 2, 224),
    Layer("layer1_conv3", 64, 256, 1, 1, 56),
    Layer("layer2_conv2", 128, 128, 3, 2, 56),
    Layer("layer2_downsample", 256, 512, 1, 2, 56),
    Layer("layer4_conv3", 512, 2048, 1, 1, 7),
    Layer("resnext_conv2", 128, 128, 3, 1, 56, groups=32),
)

NUMERICS = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float32": torch.float32,
    "tf32": torch.float32,
}

#: Large enough for every tile.
EVERY = Layer("every", 256, 256, 3, 1, 56)


def activation(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta").to(memory_format=torch.channels_last)


def vectors(channels: int, count: int) -> list[Tensor]:
    return [torch.empty(channels, device="meta") for _ in range(count)]


def call_convolutions(layer: Layer, dtype: torch.dtype) -> None:
    """All four convolutions with everything they can be given."""
    c, k, r = layer.c, layer.k, layer.r
    out = (layer.size - 1) // layer.stride + 1
    x, y = (
        activation(BATCH, c, layer.size, layer.size, dtype=dtype),
        activation(BATCH, k, out, out, dtype=dtype),
    )
    w = activation(k, c // layer.groups, r, r, dtype=dtype)
    g = ((layer.stride,) * 2, (r // 2,) * 2, (1, 1), layer.groups)
    with set_wrap_triton_enabled(False):  # as in an eager call
        conv_affine_act.conv_affine_act(x, w, *vectors(k, 2), y, True, *g)
        conv_stats.conv_stats(x, w, *vectors(c, 2), *g)
        conv_dgrad.conv_dgrad(y, w, y, *vectors(k, 3), x, x, *vectors(c, 4), x.shape, *g)
        conv_wgrad.conv_wgrad(x, y, *vectors(c, 2), y, *vectors(k, 3), w.shape, *g, False)


def call_pointwise(dtype: torch.dtype) -> None:
    """Every kernel that is not a convolution."""
    c = 64
    y = activation(BATCH, c, 112, 112, dtype=dtype)
    affine_add_act.affine_add_act(y, *vectors(c, 2), y, *vectors(c, 2), True)
    bn_act_bwd_reduce.bn_act_bwd_reduce(y, y, y, None, None, *vectors(c, 2), y, *vectors(c, 2))
    bn_act_bwd_reduce.bn_act_bwd_reduce(y, None, y, *vectors(c, 4), None, None, None)
    bn_act_bwd_apply.bn_act_bwd_apply(y, y, *vectors(c, 3), y, *vectors(c, 3))
    out, index = affine_act_maxpool.affine_act_maxpool(y, *vectors(c, 2))
    affine_act_maxpool.affine_act_maxpool_bwd(out, index, y, *vectors(c, 4))
    bn_finalize.bn_finalize(*bn_stats.bn_stats(y), *vectors(c, 2), 1e-5)
    bn_bwd_finalize.bn_bwd_finalize(torch.empty(2, c, device="meta"), *vectors(c, 3), 100, False)
    for momentum in (0.1, None):
        move_running(4, momentum)


def move_running(layers: int, momentum: float | None) -> None:
    """Running statistics of so many layers."""
    running_mean, running_var, mean, var = (vectors(64, layers) for _ in range(4))
    batches = [torch.empty((), dtype=torch.int64, device="meta")] * layers
    bn_update_running.bn_update_running(
        running_mean, running_var, batches, mean, var, [100] * layers, momentum
    )


def distinct(launches: Iterable[Launch]) -> list[Launch]:
    """One launch for each compilation."""
    found = {(lau.name, str(lau.signature()), str(lau.options)): lau for lau in launches}
    return list(found.values())


def verify(launch: Launch, capability: int, folder: Path) -> None:
    kernel = compiled(launch, GPUTarget("cuda", capability, 32))
    what = f"{launch.name} {launch.constants} {launch.options} on {capability}"
    _, stack = registers_and_stack(kernel, folder)
    assert not stack, f"{what}: {stack} bytes of stack, {resources(kernel, folder).spills} in its main loop"
    limit = DEVICES[capability].shared_memory
    assert kernel.metadata.shared <= limit, (
        f"{what}: {kernel.metadata.shared} bytes of shared memory of {limit}"
    )
    if launch.name not in ("conv_kernel", "wgrad_kernel"):
        return
    if launch.constants.get("PN"):
        assert "cp.async.bulk.tensor" in kernel.asm["ptx"], f"{what}: boxes are not copied by TMA"
    exact = (
        launch.constants["PRECISION"] == "ieee"
        and "fp32" in launch.signature()[0][launch.kernel.arg_names[0]]
    )
    small = launch.constants["BM"] < WARP_GROUP_ROWS or launch.options["num_warps"] < 4
    expected = "fma" if exact else "mma.sync" if small else MATRIX_INSTRUCTION[capability]
    assert expected in kernel.asm["ptx"], f"{what}: no {expected}"


def verify_all(launches: list[Launch], capability: int, folder: Path) -> None:
    assert launches
    for launch in distinct(launches):
        verify(launch, capability, folder)


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> list[Launch]:
    """What is launched from here on, on a device of the test's ``capability``."""
    noted: list[Launch] = []
    intercept(monkeypatch, DEVICES[request.getfixturevalue("capability")], noted.append)
    return noted


@pytest.mark.parametrize("capability", [80])
def test_pointwise(capability: int, launches: list[Launch], tmp_path: Path) -> None:
    call_pointwise(torch.bfloat16)
    verify_all(launches, capability, tmp_path)


@pytest.mark.parametrize(("layers", "grids"), [(1, [(1,)]), (4, [(4,)]), (6, [(4,), (2,)])])
@pytest.mark.parametrize("capability", [80])
def test_running_statistics_of_a_block_are_one_launch(
    capability: int, layers: int, grids: list[tuple[int, ...]], launches: list[Launch]
) -> None:
    move_running(layers, 0.1)
    assert [launch.grid for launch in launches] == grids


@pytest.mark.parametrize("capability", [80, 90])
def test_residual_block_convolution(capability: int, launches: list[Launch], tmp_path: Path) -> None:
    call_convolutions(LAYERS[0], torch.bfloat16)
    verify_all(launches, capability, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("layer", [LAYERS[0], LAYERS[5]], ids=lambda layer: layer.name)
@pytest.mark.parametrize("capability", [90, 100])
def test_boxes_compile_better(
    capability: int, layer: Layer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where the rule takes tensor descriptors there are fewer instructions than with pointers, and no fewer
    programs are resident."""
    facts = DEVICES[capability]
    found: dict[bool, list[Launch]] = {}
    for boxes in (False, True):
        with monkeypatch.context() as patch:
            found[boxes] = []
            intercept(patch, facts._replace(copies_boxes=boxes), found[boxes].append)
            call_convolutions(layer, torch.bfloat16)
    compared = [pair for pair in zip(*found.values(), strict=True) if pair[1].constants.get("PN")]
    assert compared
    for pointers, boxed in compared:
        costs = []
        for launch in (pointers, boxed):
            kernel = compiled(launch, GPUTarget("cuda", capability, 32))
            used = resources(kernel, tmp_path)
            threads = 32 * launch.options["num_warps"]
            resident = min(65536 // (used.registers * threads), facts.shared_memory // kernel.metadata.shared)
            costs.append((used.loop, resident))
        assert costs[1][0] <= costs[0][0] and costs[1][1] >= costs[0][1], f"{boxed.constants}: {costs}"


@pytest.mark.slow
@pytest.mark.parametrize("capability", [90, 100, 120])
def test_pointwise_elsewhere(capability: int, launches: list[Launch], tmp_path: Path) -> None:
    call_pointwise(torch.bfloat16)
    verify_all(launches, capability, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("numerics", NUMERICS)
@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
@pytest.mark.parametrize("capability", DEVICES)
def test_layers(
    capability: int,
    layer: Layer,
    numerics: str,
    launches: list[Launch],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", numerics == "tf32")
    call_convolutions(layer, NUMERICS[numerics])
    verify_all(launches, capability, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("numerics", NUMERICS)
@pytest.mark.parametrize("capability", DEVICES)
@pytest.mark.parametrize(
    ("kernel", "tile"),
    [("conv_kernel", tile) for tile in CONV_TILES] + [("wgrad_kernel", tile) for tile in WGRAD_TILES],
    ids=str,
)
def test_every_tile(
    kernel: str,
    tile: Tile,
    capability: int,
    numerics: str,
    launches: list[Launch],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What autotuning may try of it in any layer; the smallest stands in where it is left out."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", numerics == "tf32")
    if kernel == "conv_kernel":
        monkeypatch.setattr(_conv, "CONV_TILES", (tile, CONV_TILES[-1]))
    else:
        monkeypatch.setattr(conv_wgrad, "WGRAD_TILES", (tile, WGRAD_TILES[-1]))
    for layer in (EVERY, *LAYERS):
        call_convolutions(layer, NUMERICS[numerics])
    verify_all([lau for lau in launches if lau.name == kernel], capability, tmp_path)


def verify_on_hip(launches: list[Launch]) -> None:
    """Nothing assumes NVIDIA: the same kernels compile for an MI300. They have not run on one."""
    assert launches
    for launch in distinct(launches):
        kernel = compiled(launch, HIP)
        what, text = f"{launch.name} {launch.constants} {launch.options}", kernel.asm["amdgcn"]
        assert kernel.metadata.shared <= HIP_FACTS.shared_memory, f"{what}: {kernel.metadata.shared} bytes"
        spilled = [int(count) for count in re.findall(r"\.vgpr_spill_count:\s+(\d+)", text)]
        assert spilled == [0], f"{what}: {spilled} registers spilled"
        if launch.name in ("conv_kernel", "wgrad_kernel"):
            assert "mfma" in text, f"{what}: no mfma"


@pytest.mark.slow
@pytest.mark.parametrize("numerics", NUMERICS)
def test_hip(numerics: str, monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[Launch] = []
    intercept(monkeypatch, HIP_FACTS, noted.append)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", numerics == "tf32")
    call_convolutions(LAYERS[0], NUMERICS[numerics])
    call_pointwise(NUMERICS[numerics])
    verify_on_hip(noted)


@pytest.mark.slow
@pytest.mark.parametrize("tile", CONV_TILES, ids=str)
def test_every_convolution_tile_on_hip(tile: Tile, monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[Launch] = []
    intercept(monkeypatch, HIP_FACTS, noted.append)
    monkeypatch.setattr(_conv, "CONV_TILES", (tile,))
    call_convolutions(EVERY, torch.bfloat16)
    verify_on_hip([lau for lau in noted if lau.name == "conv_kernel"])


@pytest.mark.slow
@pytest.mark.parametrize("tile", WGRAD_TILES, ids=str)
def test_every_weight_gradient_tile_on_hip(tile: Tile, monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[Launch] = []
    intercept(monkeypatch, HIP_FACTS, noted.append)
    monkeypatch.setattr(conv_wgrad, "WGRAD_TILES", (tile,))
    call_convolutions(EVERY, torch.bfloat16)
    verify_on_hip([lau for lau in noted if lau.name == "wgrad_kernel"])
