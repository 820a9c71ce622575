"""PTX to C++: one C++ function per basic block of a kernel, in which a register is a vector of 32 lanes.

`flatten` inlines calls, `cfg` cuts basic blocks, `layout` places variables, `registers` runs liveness,
`emitter` writes blocks with the help of `instructions`, `kernel` and `module` put them together.
"""

from .classes import CLASSES
from .module import lower_module

__all__ = ["CLASSES", "lower_module"]
