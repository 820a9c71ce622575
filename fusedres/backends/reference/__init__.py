"""The reference back-end: the kernel vocabulary in plain PyTorch, on any device and in float64.

Every other back-end is held to it. It forms what the ops' docstrings say, step by step: pointwise work
and convolutions in the accumulation dtype (fp32, or float64 for float64), reductions in float64, one
rounding to each output's dtype.
"""

from fusedres.backends.reference import backward, conv, join, pool, statistics
from fusedres.ops._dispatch import Backend, register_backend

__all__ = ["backward", "conv", "join", "pool", "statistics"]

register_backend(Backend("reference", unavailable=lambda: None, cannot_serve=lambda device, dtype: None))
