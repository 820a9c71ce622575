"""The ops: kernels of the vocabulary, and the block functions with gradients above them."""

from fusedres.ops._functional import ConvBN
from fusedres.ops.affine_act_maxpool import affine_act_maxpool, affine_act_maxpool_bwd
from fusedres.ops.affine_add_act import affine_add_act
from fusedres.ops.basic_block import basic_block
from fusedres.ops.bn_act_bwd_apply import bn_act_bwd_apply
from fusedres.ops.bn_act_bwd_reduce import bn_act_bwd_reduce
from fusedres.ops.bn_bwd_finalize import bn_bwd_finalize
from fusedres.ops.bn_finalize import bn_finalize
from fusedres.ops.bn_stats import bn_stats
from fusedres.ops.bn_update_running import bn_update_running
from fusedres.ops.bottleneck import bottleneck
from fusedres.ops.bottleneck_infer import bottleneck_infer
from fusedres.ops.conv_affine_act import conv_affine_act
from fusedres.ops.conv_bn_act import conv_bn_act
from fusedres.ops.conv_dgrad import conv_dgrad
from fusedres.ops.conv_stats import conv_stats
from fusedres.ops.conv_wgrad import conv_wgrad
from fusedres.ops.stem import stem

__all__ = [
    "ConvBN",
    "affine_act_maxpool",
    "affine_act_maxpool_bwd",
    "affine_add_act",
    "basic_block",
    "bn_act_bwd_apply",
    "bn_act_bwd_reduce",
    "bn_bwd_finalize",
    "bn_finalize",
    "bn_stats",
    "bn_update_running",
    "bottleneck",
    "bottleneck_infer",
    "conv_affine_act",
    "conv_bn_act",
    "conv_dgrad",
    "conv_stats",
    "conv_wgrad",
    "stem",
]
