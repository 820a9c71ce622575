"""``pytest benchmarks/``: ops and models in one process; ``python -m benchmarks``: models against peers."""
