"""What the GPU kernels cost, where no GPU is: compiled code read, launches emulated, bytes added up."""

from __future__ import annotations

import sys
from pathlib import Path

#: The emulator is a package of its own, which need not be installed.
TOOL = Path(__file__).parents[2] / "tools" / "ptxemu"

if str(TOOL) not in sys.path:
    sys.path.insert(0, str(TOOL))
