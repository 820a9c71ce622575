"""Whole models against their peers, each in a process of its own, in interleaved rounds."""
