"""Modules: torchvision's residual blocks, fused, and the conversion of models to and from them."""

from fusedres.nn._module import refresh
from fusedres.nn.blocks import FusedBasicBlock, FusedBottleneck
from fusedres.nn.convert import fuse, unfuse
from fusedres.nn.offload import offload

__all__ = ["FusedBasicBlock", "FusedBottleneck", "fuse", "offload", "refresh", "unfuse"]
