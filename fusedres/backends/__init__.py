"""The back-ends. Importing this package lets each of them enter itself; adding one adds a line here."""

from fusedres.backends import cpu, cuda, reference, triton

__all__ = ["cpu", "cuda", "reference", "triton"]
