"""Fused ResNets for PyTorch: the same parameters, the same numbers, fewer and larger kernel launches."""

from fusedres._settings import backend, composition, memory, precision, set_backend
from fusedres.ops import ConvBN, basic_block, bottleneck, conv_bn_act, stem
from fusedres import backends as _backends  # noqa: F401  (back-ends enter themselves on import)

__version__ = "0.1.0"

__all__ = [
    "ConvBN",
    "backend",
    "basic_block",
    "bottleneck",
    "composition",
    "conv_bn_act",
    "memory",
    "precision",
    "set_backend",
    "stem",
]
