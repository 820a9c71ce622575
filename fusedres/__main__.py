"""``python -m fusedres``: the command line."""

from fusedres.cli import main

if __name__ == "__main__":
    main()
