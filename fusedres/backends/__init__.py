"""The back-ends. Importing this package lets each of them enter itself; adding one adds a line here."""

from fusedres.backends import cpu, reference, triton

__all__ = ["cpu", "reference", "triton"]
