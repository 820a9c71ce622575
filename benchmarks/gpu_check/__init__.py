"""``make gpu-check``: the tests and benchmarks that need a GPU, and one report of them to send."""
