"""What the host code needs to know of the device, and of torch's switches."""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
import triton

#: Triton decides when a kernel is decorated whether it is compiled or interpreted.
INTERPRETED: bool = triton.knobs.runtime.interpret


class DeviceFacts(NamedTuple):
    """How many programs run at once, the shared memory one of them may have (bytes), whether hardware copies
    boxes of tensors (TMA), and NVIDIA's compute capability in whole numbers; 0 for another vendor's."""

    processors: int
    shared_memory: int
    copies_boxes: bool = False
    capability: int = 0


#: Stands in where tensors are not on a GPU (interpreter, compiling ahead of time): an A100's.
DEFAULT_FACTS = DeviceFacts(processors=108, shared_memory=163 * 1024, capability=8)

#: Compute capabilities, in whole numbers, whose matrix units read shared memory as TMA lays it out. 12.0 has
#: TMA too, but multiplies out of registers, and not all of its 3×3 kernels compile better (tests/compile).
BOX_CAPABILITIES = (9, 10)

#: Where torch does not say (ROCm): what every GPU that Triton serves has.
LEAST_SHARED_MEMORY = 64 * 1024


@functools.cache
def _facts_of(index: int | None) -> DeviceFacts:
    properties = torch.cuda.get_device_properties(index)
    shared = getattr(properties, "shared_memory_per_block_optin", LEAST_SHARED_MEMORY)
    capability = properties.major if torch.version.hip is None else 0
    return DeviceFacts(properties.multi_processor_count, shared, capability in BOX_CAPABILITIES, capability)


def device_facts(device: torch.device) -> DeviceFacts:
    """The facts of ``device``."""
    return _facts_of(device.index) if device.type == "cuda" else DEFAULT_FACTS


def cdiv(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


def power_of_two(n: int) -> int:
    """The smallest power of two that is at least ``n``."""
    return int(triton.next_power_of_2(n))


def dot_precision(dtype: torch.dtype) -> str:
    """``tl.dot``'s precision: TF32 for fp32 where torch allows it in convolutions, else exact fp32."""
    return "tf32" if dtype == torch.float32 and torch.backends.cudnn.allow_tf32 else "ieee"


def needs_int64(*tensors: torch.Tensor | None) -> bool:
    """Whether an offset into any of the tensors can pass 2³¹ (tile padding included)."""
    return any(t is not None and t.numel() >= 2**31 - 2**20 for t in tensors)
