"""The command line: ``fusedres info``, ``compare``, ``classify`` and ``tune``."""

from fusedres.cli.app import app


def main() -> None:
    """Entry point of ``fusedres`` and of ``python -m fusedres``."""
    app()
