"""The pipe between the parent and its workers: a command a line one way, a JSON object a line back."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

Reply = dict[str, Any]


class WorkerError(RuntimeError):
    """A worker that died, went silent or answered with something else than a reply."""


class Worker:
    """A child process that waits idle between commands.

    Its stderr (and whatever libraries print on stdout) goes to ``log``. It ends when its stdin closes,
    so it cannot outlive its parent.
    """

    def __init__(self, argv: list[str], env: dict[str, str], cwd: Path, log: Path) -> None:
        self.log = log
        with log.open("wb") as stderr:
            self._process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, env=env, cwd=cwd
            )
        self._buffer = b""

    def receive(self, timeout: float) -> Reply:
        """The next reply.

        Raises:
            WorkerError: none within ``timeout`` seconds, or the process ended, or the line is no reply.
        """
        stdout = self._process.stdout
        assert stdout is not None  # stdout=PIPE above
        deadline = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise WorkerError(f"no answer within {timeout:.0f} s{self._last_words()}")
                chunk = os.read(stdout.fileno(), 1 << 16)
                if not chunk:
                    code = self._process.wait()
                    raise WorkerError(f"ended with exit status {code}{self._last_words()}")
                self._buffer += chunk
        line, self._buffer = self._buffer.split(b"\n", 1)
        try:
            reply = json.loads(line)
        except ValueError:
            raise WorkerError(f"answered {line[:80]!r}, which is no JSON") from None
        if not isinstance(reply, dict):
            raise WorkerError(f"answered {line[:80]!r}, which is no JSON object")
        return reply

    def ask(self, command: str, timeout: float) -> Reply:
        """Send one line, wait for its reply; a reply of status ``failed`` is raised as WorkerError."""
        stdin = self._process.stdin
        assert stdin is not None  # stdin=PIPE above
        try:
            stdin.write(command.encode() + b"\n")
            stdin.flush()
        except BrokenPipeError:
            raise WorkerError(f"ended with exit status {self._process.wait()}{self._last_words()}") from None
        reply = self.receive(timeout)
        if reply.get("status") == "failed":
            raise WorkerError(str(reply.get("reason")))
        return reply

    def close(self, patience: float = 5.0) -> None:
        """Close its stdin; kill it if it has not ended ``patience`` seconds later."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        with suppress(BrokenPipeError):
            stdin.close()
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        stdout.close()

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return f"; last line of its log: {lines[-1]}" if lines else ""


def claim_stdout() -> BinaryIO:
    """In a worker: keep the pipe for replies, and send what anyone else prints to stderr."""
    sys.stdout.flush()
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    return replies


def send(replies: BinaryIO, reply: Reply) -> None:
    replies.write(json.dumps(reply).encode() + b"\n")
