"""Load PTX and launch its kernels on host memory."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from . import abi, counters
from .build import translate
from .errors import PtxEmuError

PARAM_ALIGN = 64
DEFAULT_QUANTUM = 1 << 20  # basic blocks a warp runs before the next one gets its turn
MAX_BLOCKS = 1 << 32  # after which a launch counts as endless
MAX_ERRORS = 2000
COUNT_NONE, COUNT_BASIC, COUNT_DRAM = 0, 1, 2


def load(ptx: str, only: Collection[str] | None = None) -> Module:
    """Translate PTX text (of nvcc or Triton) and load it; `only` names the kernels that are wanted."""
    return Module(ptx, only)


class Module:
    """The kernels and variables of a PTX file."""

    def __init__(self, ptx: str, only: Collection[str] | None = None) -> None:
        abi.runtime()  # before the module, which needs its symbols
        translation = translate(ptx, only)
        self.path = translation.library
        self.errors = translation.errors
        self._library = ctypes.CDLL(str(self.path))
        description: Any = abi.ModuleDesc.in_dll(self._library, "pe_module")
        self.kernels: dict[str, abi.KernelDesc] = {}
        self.variables: dict[str, abi.VariableDesc] = {}
        for kernel in description.kernels[: description.kernel_count]:
            self.kernels[kernel.name.decode()] = kernel
        for variable in description.variables[: description.variable_count]:
            self.variables[variable.name.decode()] = variable
            abi.register_memory(variable.pointer, variable.size, read_only=bool(variable.space))

    def kernel(self, name: str | None = None) -> abi.KernelDesc:
        """The kernel of this name, or the only one whose name contains it (None: the module's only kernel).

        Raises:
            PtxEmuError: it could not be translated.
            KeyError: no kernel fits, or several do.
        """
        if name is not None and name in self.kernels:
            return self.kernels[name]
        for kernel, why in self.errors.items():
            if name is None or name in kernel:
                raise PtxEmuError(f"kernel {kernel} could not be translated: {why}")
        matches = [kernel for kernel in self.kernels if name is None or name in kernel]
        if len(matches) != 1:
            raise KeyError(f"{name} fits {len(matches)} of the kernels {', '.join(self.kernels)}")
        return self.kernels[matches[0]]

    def variable(self, name: str) -> ctypes.Array[ctypes.c_uint8]:
        """The bytes of a ``__device__`` or ``__constant__`` variable; writing them changes it."""
        variable = self.variables[name]
        array = ctypes.c_uint8 * variable.size
        return array.from_address(variable.pointer)

    def launch(
        self,
        name: str | None,
        grid: int | Sequence[int],
        block: int | Sequence[int],
        args: Sequence[Any],
        *,
        dynamic_smem: int = 0,
        cluster: Sequence[int] | None = None,
        cooperative: bool = False,
        mem: Iterable[Any] = (),
        count: int = COUNT_DRAM,
        race: bool = False,
        check_init: bool = False,
        threads: int = 2,
        seed: int = 0,
        quantum: int = DEFAULT_QUANTUM,
        max_blocks: int = MAX_BLOCKS,
        max_errors: int = MAX_ERRORS,
        raise_errors: bool = True,
    ) -> counters.Counters:
        """Run a kernel and return what it counted (`ptxemu.counters`), with ``errors`` as a list of messages.

        Args:
            name: as for `kernel`.
            grid, block: one to three numbers.
            args: torch CPU tensors or numpy arrays (passed as pointers), numbers, None (a null pointer), or
                bytes (structs by value).  The tensors' storage is the only memory the kernel may touch.
            dynamic_smem: bytes of dynamic shared memory.
            cluster: CTAs of a cluster, where the kernel does not say.
            cooperative: keep all CTAs in flight, so that grid.sync() works.
            mem: further tensors the kernel may touch (that tensor maps point to, say).
            count: 0 nothing, 1 counters, 2 also the distinct DRAM sectors.
            race: report shared memory races and reads of wgmma accumulators in flight.
            check_init: with `race`, report reads of shared memory that nothing wrote.
            threads: CTAs that run at once; 1 makes float atomics deterministic.
            seed: other than 0, randomises the order of warps.
            quantum, max_blocks, max_errors: limits, in basic blocks and in errors.
            raise_errors: raise PtxEmuError where the kernel broke a rule; else only list the errors.
        """
        kernel = self.kernel(name)
        if len(args) != kernel.param_count:
            given = f"{kernel.param_count} parameters expected, {len(args)} given"
            raise PtxEmuError(f"{kernel.name.decode()}: {given}")
        options = abi.LaunchOptions(
            count, race, threads, seed, quantum, check_init, max_errors, cooperative, max_blocks
        )
        library = abi.runtime()
        with _RegisteredMemory([*args, *mem]):
            params = _Parameters(kernel, args)
            failed = library.pe_launch(
                ctypes.byref(kernel),
                _dimensions(grid),
                _dimensions(block),
                _dimensions(cluster) if cluster else None,
                ctypes.c_void_p(params.address),
                ctypes.c_uint32(dynamic_smem),
                ctypes.byref(options),
            )
            message = library.pe_last_errors().decode(errors="replace")
            raw = library.pe_last_counters()[: counters.RAW_LENGTH]
        if failed and raise_errors:
            raise PtxEmuError(message)
        result = counters.decode(raw)
        result["errors"] = message.strip().splitlines()
        return result


def _dimensions(sizes: int | Sequence[int]) -> ctypes.Array[ctypes.c_uint32]:
    given = [sizes] if isinstance(sizes, int) else list(sizes)
    return (ctypes.c_uint32 * 3)(*[*given, 1, 1][:3])


def _buffer(value: Any) -> tuple[int, int] | None:
    """Address of a tensor or array and the bytes of its storage from there on; None for other values."""
    if hasattr(value, "untyped_storage"):
        storage = value.untyped_storage()
        return value.data_ptr(), storage.nbytes() - (value.data_ptr() - storage.data_ptr())
    if hasattr(value, "ctypes") and hasattr(value, "nbytes"):
        return value.ctypes.data, value.nbytes
    return None


class _RegisteredMemory:
    """Tensors and arrays registered with the runtime for the length of a launch."""

    def __init__(self, values: Iterable[Any]) -> None:
        self.buffers = dict(buffer for value in values if (buffer := _buffer(value)))
        self.registered: list[int] = []

    def __enter__(self) -> None:
        for address, size in self.buffers.items():
            if address and size and not abi.runtime().pe_alloc_size(address):
                abi.register_memory(address, size)
                self.registered.append(address)

    def __exit__(self, *_: object) -> None:
        for address in self.registered:
            abi.unregister_memory(address)


class _Parameters:
    """A kernel's parameter buffer, aligned as on the device."""

    def __init__(self, kernel: abi.KernelDesc, args: Sequence[Any]) -> None:
        self._buffer = ctypes.create_string_buffer(kernel.param_bytes + PARAM_ALIGN)
        self.address = -(-ctypes.addressof(self._buffer) // PARAM_ALIGN) * PARAM_ALIGN
        for index, arg in enumerate(args):
            size = kernel.param_size[index]
            ctypes.memmove(self.address + kernel.param_offset[index], _encode(arg, size), size)


def _encode(arg: Any, size: int) -> bytes:
    """The bytes of an argument for a parameter of `size` bytes."""
    buffer = _buffer(arg)
    if buffer:
        data = buffer[0].to_bytes(8, "little")
    elif isinstance(arg, bytes):
        data = arg
    elif isinstance(arg, float):
        data = struct.pack("<f" if size == 4 else "<d", arg)
    else:
        data = (int(arg or 0) & ((1 << (8 * size)) - 1)).to_bytes(size, "little")
    return data[:size].ljust(size, b"\0")
