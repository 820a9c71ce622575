"""Build the test extension into a folder: python build_ext.py FOLDER."""

import os
import sys
from pathlib import Path

from ptxemu.toolchain import cuda_root

HERE = Path(__file__).resolve().parent

if __name__ == "__main__":
    os.environ.setdefault("CUDA_HOME", str(cuda_root()))
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # ninja
    from torch.utils.cpp_extension import load  # looks for CUDA_HOME when imported

    load(
        "pe_test",
        [str(HERE / "kernels.cu"), str(HERE / "binding.cpp")],
        build_directory=sys.argv[1],
        is_python_module=False,
        is_standalone=False,
        verbose=True,
        extra_cflags=["-O0"],
        extra_cuda_cflags=["-O2", "-gencode=arch=compute_80,code=compute_80"],
        with_cuda=True,
    )
