"""Tensors whose bytes lie in a file, mapped into memory: their pages can be given back and are read again.

A page of a file that is mapped shared loses nothing when a process lets go of it: what was written to it
lies in the system's page cache, or in the file. So the pages of a weight that was packed, and is read no
more, cost no memory that the system could not take back.
"""

from __future__ import annotations

import mmap
import tempfile
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from weakref import WeakValueDictionary

import torch
from torch import Tensor

#: The files that are mapped now, by the address of their first byte. A tensor in one keeps it alive.
_FILES: WeakValueDictionary[int, mmap.mmap] = WeakValueDictionary()
_LOCK = threading.Lock()


def into_file(tensors: Sequence[Tensor], folder: Path) -> list[Tensor]:
    """Copies of CPU tensors, of the same sizes and strides, in one nameless file in ``folder``.

    The file ends with the last copy, or with the process.

    Args:
        tensors: contiguous or channels_last, none empty.
        folder: made where it is missing; on a disk, because files of a memory file system are memory.

    Raises:
        OSError: the folder or the file cannot be made, or the disk is full: the space is taken here, not
            when a page is first written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    offsets = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for tensor in tensors:
            file.seek(-(-file.tell() // mmap.PAGESIZE) * mmap.PAGESIZE)
            offsets.append(file.tell())
            file.write(_bytes(tensor).numpy().data)
        file.flush()
        mapped = mmap.mmap(file.fileno(), 0)
    with _LOCK:
        _FILES[torch.frombuffer(mapped, dtype=torch.uint8).data_ptr()] = mapped
    copies = [
        torch.frombuffer(mapped, dtype=t.dtype, count=t.numel(), offset=offset).as_strided(
            t.size(), t.stride()
        )
        for t, offset in zip(tensors, offsets, strict=True)
    ]
    mapped.flush()  # pages that the disk has are the system's to take
    let_go(copies)
    return copies


def is_mapped(tensor: Tensor) -> bool:
    """Whether a tensor's bytes lie in a file of :func:`into_file`'s."""
    return _place(tensor) is not None


def let_go(tensors: Iterable[Tensor | None]) -> None:
    """Give the pages of those tensors back that lie in files; whoever reads them has them again."""
    if not hasattr(mmap, "MADV_DONTNEED"):  # Windows
        return
    for tensor in tensors:
        if tensor is not None and (place := _place(tensor)) is not None:
            file, begin = place
            first = -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE
            # Advice: memory that is locked stays, and so does less than a page.
            with suppress(OSError, ValueError):
                file.madvise(mmap.MADV_DONTNEED, first, begin + tensor.untyped_storage().nbytes() - first)


def _place(tensor: Tensor) -> tuple[mmap.mmap, int] | None:
    """The file that a tensor lies in, and where in it its storage begins."""
    if not _FILES or tensor.device.type != "cpu":
        return None
    address = tensor.untyped_storage().data_ptr()
    with _LOCK:
        files = list(_FILES.items())
    for first, mapped in files:
        if first <= address < first + len(mapped):
            return mapped, address - first
    return None


def _bytes(tensor: Tensor) -> Tensor:
    """A tensor's bytes in the order in which they lie in memory."""
    own = tensor.detach()
    ordered = own if own.is_contiguous() else own.permute(0, 2, 3, 1)
    return ordered.reshape(-1).view(torch.uint8)
