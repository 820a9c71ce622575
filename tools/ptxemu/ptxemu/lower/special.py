"""Special registers (%tid.x, %laneid, %clock64, ...) as C++ expressions."""

from __future__ import annotations

import re
from typing import NamedTuple


class SpecialRegister(NamedTuple):
    expression: str
    width: int


_DIMENSIONAL = re.compile(
    r"%(tid|ntid|ctaid|nctaid|cluster_ctaid|cluster_nctaid|clusterid|nclusterid)\.([xyzw])$"
)
SM_COUNT = 132  # of an H100

_SCALAR = {
    "%laneid": "pe_iota",
    "%warpid": "bc32(w->wid)",
    "%nwarpid": "bc32((w->ntid[0]*w->ntid[1]*w->ntid[2]+31)/32)",
    "%smid": "bc32(0)",
    "%nsmid": f"bc32({SM_COUNT})",
    "%gridid": "bc32(w->gridid)",
    "%lanemask_lt": "pe_lt_mask",
    "%lanemask_le": "pe_le_mask",
    "%lanemask_gt": "pe_gt_mask",
    "%lanemask_ge": "pe_ge_mask",
    "%lanemask_eq": "pe_eq_mask",
    "%clock": "bc32((uint32_t)pe_clock())",
    "%clock_hi": "bc32((uint32_t)(pe_clock() >> 32))",
    "%globaltimer_lo": "bc32((uint32_t)pe_globaltimer())",
    "%globaltimer_hi": "bc32((uint32_t)(pe_globaltimer() >> 32))",
    "%dynamic_smem_size": "bc32(w->dyn_smem)",
    "%total_smem_size": "bc32(w->tot_smem)",
    "%aggr_smem_size": "bc32(w->tot_smem)",
    # cooperative groups find the workspace of grid.sync() in these two
    "%envreg1": "bc32((uint32_t)(w->gridws >> 32))",
    "%envreg2": "bc32((uint32_t)w->gridws)",
    "%cluster_ctarank": "bc32(w->cluster_rank)",
    "%cluster_nctarank": "bc32(w->cluster_size)",
    "%is_explicit_cluster": "bc32(w->cluster_size > 1)",
}
_SCALAR64 = {"%clock64": "bc64(pe_clock())", "%globaltimer": "bc64(pe_globaltimer())"}


def special_register(name: str) -> SpecialRegister | None:
    """The expression and width of a special register; None for an unknown name."""
    if match := _DIMENSIONAL.match(name):
        return SpecialRegister(_dimensional(*match.groups()), 32)
    if name in _SCALAR:
        return SpecialRegister(_SCALAR[name], 32)
    if name in _SCALAR64:
        return SpecialRegister(_SCALAR64[name], 64)
    return None


def _dimensional(kind: str, dimension: str) -> str:
    if dimension == "w":
        return "bc32(0)"
    index = "xyz".index(dimension)
    if kind == "tid":
        return f"w->tid[{index}]"
    if kind == "clusterid":
        return f"bc32(w->ctaid[{index}] / w->cluster_nctaid[{index}])"
    if kind == "nclusterid":
        return f"bc32(w->nctaid[{index}] / w->cluster_nctaid[{index}])"
    return f"bc32(w->{kind}[{index}])"
