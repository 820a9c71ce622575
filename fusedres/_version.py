"""The package's version: plans are kept by it, too."""

__version__ = "0.1.0"
