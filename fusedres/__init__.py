"""Fused ResNets for PyTorch: the same parameters, the same numbers, fewer and larger kernel launches."""

from fusedres import backends as _backends  # noqa: F401  (back-ends enter themselves on import)
from fusedres import models as _models
from fusedres import plan
from fusedres._build import build_info
from fusedres._settings import backend, composition, memory, precision, set_backend, set_precision
from fusedres._version import __version__
from fusedres.models import *  # noqa: F403
from fusedres.nn import FusedBasicBlock, FusedBottleneck, fuse, offload, refresh, unfuse
from fusedres.ops import ConvBN, basic_block, bottleneck, conv_bn_act, stem
from fusedres.plan import tune

__all__ = [
    "ConvBN",
    "FusedBasicBlock",
    "FusedBottleneck",
    "__version__",
    "backend",
    "basic_block",
    "bottleneck",
    "build_info",
    "composition",
    "conv_bn_act",
    "fuse",
    "memory",
    "offload",
    "plan",
    "precision",
    "refresh",
    "set_backend",
    "set_precision",
    "stem",
    "tune",
    "unfuse",
    *_models.__all__,
]
