"""The runtime library through ctypes: the structures of ``runtime/abi.hpp`` and its functions."""

from __future__ import annotations

import ctypes
import functools
from typing import TYPE_CHECKING

from .build import runtime_library

if TYPE_CHECKING:
    UInt32Pointer = ctypes._Pointer[ctypes.c_uint32]


class LaunchOptions(ctypes.Structure):
    _fields_ = (
        ("count", ctypes.c_uint32),
        ("race", ctypes.c_uint32),
        ("threads", ctypes.c_uint32),
        ("seed", ctypes.c_uint32),
        ("quantum", ctypes.c_uint32),
        ("check_init", ctypes.c_uint32),
        ("max_errors", ctypes.c_uint32),
        ("cooperative", ctypes.c_uint32),
        ("max_blocks", ctypes.c_uint64),
    )


class KernelDesc(ctypes.Structure):
    name: bytes
    shared_static: int
    param_count: int
    param_bytes: int
    param_offset: UInt32Pointer
    param_size: UInt32Pointer

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("blocks", ctypes.c_void_p),
        ("block_count", ctypes.c_uint32),
        ("register_file_bytes", ctypes.c_uint32),
        ("shared_static", ctypes.c_uint32),
        ("shared_align", ctypes.c_uint32),
        ("local_bytes", ctypes.c_uint32),
        ("param_count", ctypes.c_uint32),
        ("param_bytes", ctypes.c_uint32),
        ("param_offset", ctypes.POINTER(ctypes.c_uint32)),
        ("param_size", ctypes.POINTER(ctypes.c_uint32)),
        ("race_granularity", ctypes.c_uint32),
        ("max_threads", ctypes.c_uint32),
        ("cluster", ctypes.c_uint32 * 3),
        ("uses_mbarrier", ctypes.c_uint32),
        ("sm", ctypes.c_uint32),
        ("has_dynamic_shared", ctypes.c_uint32),
        ("locations", ctypes.c_void_p),
        ("location_count", ctypes.c_uint32),
        ("files", ctypes.c_void_p),
    )


class VariableDesc(ctypes.Structure):
    name: bytes
    pointer: int
    size: int
    space: int

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("pointer", ctypes.c_void_p),
        ("size", ctypes.c_uint64),
        ("space", ctypes.c_uint32),
    )


class ModuleDesc(ctypes.Structure):
    _fields_ = (
        ("kernel_count", ctypes.c_uint32),
        ("variable_count", ctypes.c_uint32),
        ("kernels", ctypes.POINTER(KernelDesc)),
        ("variables", ctypes.POINTER(VariableDesc)),
    )


@functools.cache
def runtime() -> ctypes.CDLL:
    """The runtime library, compiled and loaded on first use."""
    # global, so that translated modules bind to this copy and its table of allocations
    library = ctypes.CDLL(str(runtime_library()), mode=ctypes.RTLD_GLOBAL)
    library.pe_register.argtypes = [ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint32]
    library.pe_unregister.argtypes = [ctypes.c_uint64]
    library.pe_alloc_size.argtypes = [ctypes.c_uint64]
    library.pe_alloc_size.restype = ctypes.c_uint64
    library.pe_last_errors.restype = ctypes.c_char_p
    library.pe_last_counters.restype = ctypes.POINTER(ctypes.c_uint64)
    return library


def register_memory(address: int, size: int, *, read_only: bool = False) -> None:
    """Let kernels access ``[address, address + size)``."""
    runtime().pe_register(address, size, int(read_only))


def unregister_memory(address: int) -> None:
    """Forget an allocation; a kernel that still accesses it is told of a use after free."""
    runtime().pe_unregister(address)
