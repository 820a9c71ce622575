"""``fusedres.offload``: the same parameters and the same bits, with the weights in a file."""

from __future__ import annotations

import copy
import gc
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torchvision.models.resnet import BasicBlock

import fusedres
from fusedres import FusedResNet
from fusedres.ops import _mapped
from tests._parity import assert_same_bits

NO_FILES = "MADV_DONTNEED" not in vars(_mapped.mmap)


def resnet(dtype: torch.dtype = torch.float32) -> FusedResNet:
    torch.manual_seed(0)
    return FusedResNet(BasicBlock, [1, 1, 1, 1], num_classes=3).to(dtype).eval()


def images(dtype: torch.dtype = torch.float32) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(2, 3, 32, 32).to(dtype).contiguous(memory_format=torch.channels_last)


def logits(model: nn.Module, dtype: torch.dtype = torch.float32) -> Tensor:
    with torch.inference_mode():
        return model(images(dtype)).clone()


def offloaded(folder: Path, dtype: torch.dtype = torch.float32) -> FusedResNet:
    model = resnet(dtype)
    fusedres.offload(model, folder)
    return model


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_nothing_but_the_place_changes(
    dtype: torch.dtype, layout: torch.memory_format, tmp_path: Path
) -> None:
    model = resnet(dtype).to(memory_format=layout)
    names = [name for name, _ in model.named_parameters()]
    before = {name: (p, p.detach().clone(), p.stride()) for name, p in model.named_parameters()}
    expected = logits(model, dtype)
    moved = fusedres.offload(model, tmp_path)
    assert [name for name, _ in model.named_parameters()] == names
    for name, p in model.named_parameters():
        same, values, strides = before[name]
        assert p is same and p.stride() == strides and p.requires_grad
        assert_same_bits(p.detach(), values, name)
    in_files = [p for p in model.parameters() if _mapped.is_mapped(p)]
    assert moved == sum(p.numel() * p.element_size() for p in in_files) > 0
    assert all(p.dim() == 4 for p in in_files)
    assert_same_bits(logits(model, dtype), expected, "logits")
    assert not list(tmp_path.iterdir()), "the file has no name, so that nothing is left behind"


def test_what_is_written_to_a_weight_is_seen(tmp_path: Path) -> None:
    model, plain = offloaded(tmp_path), resnet()
    logits(model)  # packs, and lets the pages go
    for changed in (model, plain):
        with torch.no_grad():
            changed.layer4[0].conv2.weight.mul_(1.5)
            changed.layer3[0].conv1.weight[0].zero_()
    assert_same_bits(logits(model), logits(plain), "logits")
    fusedres.refresh(model)  # what was written outlives the pages that packing let go
    assert_same_bits(logits(model), logits(plain), "logits, packed again")


def test_it_trains(tmp_path: Path) -> None:
    model, plain = offloaded(tmp_path), resnet()
    for trained in (model, plain):
        optimizer = torch.optim.SGD(trained.train().parameters(), lr=0.1, momentum=0.9)
        for _ in range(2):
            optimizer.zero_grad()
            trained(images()).square().sum().backward()
            optimizer.step()
        trained.eval()
    for (name, ours), other in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert_same_bits(ours.detach(), other.detach(), name)
    assert_same_bits(logits(model), logits(plain), "logits")


def test_it_can_be_saved_loaded_copied_and_converted(tmp_path: Path) -> None:
    model, plain = offloaded(tmp_path), resnet()
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = FusedResNet(BasicBlock, [1, 1, 1, 1], num_classes=3).eval()
    other.load_state_dict(torch.load(file, weights_only=True))
    twin = copy.deepcopy(model)
    for same in (other, twin, fusedres.unfuse(twin)):
        assert not any(_mapped.is_mapped(p) for p in same.parameters())
    assert_same_bits(logits(other), logits(plain), "logits")
    assert_same_bits(logits(twin), logits(plain), "logits")
    assert_same_bits(logits(model.double(), torch.float64), logits(plain.double(), torch.float64), "logits")
    assert not any(_mapped.is_mapped(p) for p in model.parameters()), "another type is other memory"
    model.load_state_dict(resnet().state_dict())
    assert_same_bits(logits(model.float()), logits(resnet()), "logits")


def test_a_second_call_moves_what_is_not_there_yet(tmp_path: Path) -> None:
    model = offloaded(tmp_path)
    moved = fusedres.offload(model, tmp_path)
    addresses = {p.data_ptr() for p in model.parameters()}
    assert fusedres.offload(model, tmp_path) == moved
    assert {p.data_ptr() for p in model.parameters()} == addresses
    model.layer1[0].conv1.weight = nn.Parameter(torch.randn(64, 64, 3, 3))
    assert fusedres.offload(model, tmp_path) == moved
    assert _mapped.is_mapped(model.layer1[0].conv1.weight)


def test_the_memory_before_is_gone_even_after_an_inference(tmp_path: Path) -> None:
    """Caches hold the storages of what they were made from: an address must not be used again meanwhile."""
    model = resnet()
    logits(model)
    weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
    before = {w: StorageWeakRef(w.untyped_storage()) for w in weights}
    fusedres.offload(model, tmp_path)
    gc.collect()
    moved = [w for w in weights if _mapped.is_mapped(w)]
    assert moved and all(before[w].expired() for w in moved)


def test_the_file_ends_with_the_last_tensor(tmp_path: Path) -> None:
    files = len(_mapped._FILES)
    model = offloaded(tmp_path)
    weight = model.layer4[0].conv2.weight.detach()[3]
    expected = weight.clone()
    assert len(_mapped._FILES) == files + 1
    del model
    gc.collect()
    assert len(_mapped._FILES) == files + 1 and torch.equal(weight, expected)
    del weight
    gc.collect()
    assert len(_mapped._FILES) == files


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.skipif(NO_FILES, reason="pages cannot be given back here")
def test_packing_lets_the_pages_go(tmp_path: Path) -> None:
    def resident() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        # Of a memory file system, as /tmp is on some machines, pages count as shared memory.
        return sum(int(line.split()[1]) for line in lines if line.startswith(("RssFile", "RssShmem"))) << 10

    model = offloaded(tmp_path)
    size = fusedres.offload(model, tmp_path)
    before = resident()
    read = sum(float(p.detach().sum()) for p in model.parameters())
    assert read == read and resident() - before > size * 0.9, "whoever reads them has them"
    logits(model)
    assert resident() - before < size * 0.2, "packed, they are not read again"


def test_pages_that_stay_do_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a process has locked its memory; and a part of a weight need not begin at a page."""
    model, plain = offloaded(tmp_path), resnet()
    monkeypatch.setattr(_mapped.mmap, "PAGESIZE", 1)
    for twin in (model, plain):
        weight = twin.layer4[0].conv2.weight.detach().flatten()[5 : 5 + 64 * 64 * 9]
        twin.layer1[0].conv1.weight = nn.Parameter(torch.from_numpy(weight.numpy()).view(64, 64, 3, 3))
    assert_same_bits(logits(model), logits(plain), "logits")


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """As on a disk that is full: a longer file cannot be written."""
    resource = pytest.importorskip("resource", reason="Windows bounds no file's size")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    model = resnet()
    addresses = [p.data_ptr() for p in model.parameters()]
    with largest_file(1 << 20), pytest.raises(OSError):
        fusedres.offload(model, tmp_path)
    assert [p.data_ptr() for p in model.parameters()] == addresses
    assert not list(tmp_path.iterdir())
    assert_same_bits(logits(model), logits(resnet()), "logits")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        fusedres.offload(resnet(), tmp_path / "file" / "folder")


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (3, TypeError, r"offload: `model` must be a torch.nn.Module; got int"),
        (nn.Conv2d(64, 64, 3), ValueError, r"must have fused modules .* got Conv2d without any"),
        (resnet().to("meta"), ValueError, r"on the CPU; got FusedResNet without any"),
    ],
    ids=["no module", "nothing fused", "another device"],
)
def test_what_cannot_be_moved_is_refused(model: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fusedres.offload(model)  # type: ignore[arg-type]


def test_a_directory_that_is_no_path_is_named() -> None:
    with pytest.raises(TypeError, match=r"offload: `directory` must be a path or None; got 3"):
        fusedres.offload(resnet(), 3)  # type: ignore[arg-type]


def test_weights_made_in_inference_mode_stay(tmp_path: Path) -> None:
    """Nobody sees their changes, so they are packed in every call."""
    with torch.inference_mode():
        model = resnet()
        with pytest.raises(ValueError, match="offload: `model` must have fused modules"):
            fusedres.offload(model, tmp_path)


def test_without_a_directory_it_is_the_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    model = resnet()
    assert fusedres.offload(model) > 0
    assert (tmp_path / "fusedres").is_dir() and not list((tmp_path / "fusedres").iterdir())
    assert_same_bits(logits(model), logits(resnet()), "logits")
