"""A process that keeps one core busy when it is told to: ``python -m benchmarks.models.spinner [CORE]``.

It answers ``spin`` and ``rest``, each with one JSON object, and waits idle after ``rest``.
"""

from __future__ import annotations

import os
import selectors
import sys

from benchmarks.models.protocol import claim_stdout, send

TURNS = 100_000  # a few ms: how soon it listens


def _spin() -> None:
    for _ in range(TURNS):
        pass


def main() -> None:
    replies = claim_stdout()
    if len(sys.argv) > 1:
        os.sched_setaffinity(0, {int(sys.argv[1])})
    send(replies, {"status": "ready"})
    commands = sys.stdin.fileno()
    spinning = False
    with selectors.DefaultSelector() as selector:
        selector.register(commands, selectors.EVENT_READ)
        while True:
            if not selector.select(0 if spinning else None):
                _spin()
                continue
            said = os.read(commands, 1 << 10)
            if not said:
                return
            spinning = said.split()[-1] == b"spin"
            send(replies, {"status": "ok"})


if __name__ == "__main__":
    main()
