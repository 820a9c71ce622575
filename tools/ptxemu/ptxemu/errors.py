"""The exceptions of the package."""

from __future__ import annotations


class PtxError(Exception):
    """PTX text that the emulator cannot parse or translate; the message names the PTX line."""


class PtxEmuError(RuntimeError):
    """A kernel broke a rule while it ran, or could not be launched.

    The message names the kernel, the PTX line, the source line (with ``-lineinfo``), the CTA and the thread.
    """


class ToolError(RuntimeError):
    """A compiler or another program is missing or failed; the message has its output."""
