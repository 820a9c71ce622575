"""The command line: ``fusedres info``, ``fusedres compare`` and ``fusedres classify``."""

from fusedres.cli.app import app


def main() -> None:
    """Entry point of ``fusedres`` and of ``python -m fusedres``."""
    app()
