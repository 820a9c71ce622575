"""The back-ends. Importing this package lets each of them enter itself; adding one adds a line here."""

from fusedres.backends import reference

__all__ = ["reference"]
