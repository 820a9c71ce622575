"""Which GPUs this build has kernels for."""

from __future__ import annotations

import functools

import torch

from fusedres._build import load_extension


def serves(archs: str, capability: tuple[int, int]) -> bool:
    """Whether code for ``archs`` ("8.0+PTX;9.0") runs on a GPU of ``capability``.

    Machine code for x.y runs on x.z with z >= y; PTX, which the driver compiles, on every newer one too. A
    suffix (9.0a) ties the code to one capability.
    """
    for arch in archs.replace(",", ";").replace(" ", ";").split(";"):
        number, _, ptx = arch.partition("+")
        if not number:
            continue
        specific = not number[-1].isdigit()
        major, _, minor = number.rstrip("af").partition(".")
        built = int(major), int(minor)
        if specific:
            if capability == built:
                return True
        elif capability >= built and (ptx or capability[0] == built[0]):
            return True
    return False


@functools.cache
def _answer(index: int | None) -> str | None:
    capability = torch.cuda.get_device_capability(index)
    archs: str = load_extension("_C_cuda").cuda_archs()
    if serves(archs, capability):
        return None
    return (
        f"the build has no kernels for compute capability {capability[0]}.{capability[1]}; it was built for "
        f"{archs} (build again with FUSEDRES_CUDA_ARCHS naming that capability)"
    )


def lacks_kernels(index: int | None) -> str | None:
    """Why this build's kernels cannot run on GPU ``index`` (``None``: the current one), or ``None``."""
    return _answer(index)


# torch.compile cannot trace the extension: it asks once, and takes the answer for a constant.
torch.compiler.assume_constant_result(lacks_kernels)  # type: ignore[no-untyped-call]
