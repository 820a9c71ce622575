"""The pipe: replies, strangers' prints, silence, death and the end of the parent."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.models.machine import ROOT
from benchmarks.models.protocol import Worker, WorkerError

CHILD = """
import os, sys, time
from benchmarks.models.protocol import claim_stdout, send
replies = claim_stdout()
print("a library's banner")
os.write(1, b"and one from C\\n")
for line in sys.stdin:
    word = line.strip()
    if word == "sleep": time.sleep(60)
    elif word == "die": sys.exit("out of memory")
    elif word == "fail": send(replies, {"status": "failed", "reason": "no such kernel"})
    elif word == "garbage": replies.write(b"not json\\n")
    else: send(replies, {"echo": word, "long": "x" * 200_000})
"""


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    started = Worker([sys.executable, "-c", CHILD], dict(os.environ), ROOT, tmp_path / "log")
    yield started
    started.close(patience=0.1)


def test_replies_are_not_mixed_with_what_libraries_print(worker: Worker) -> None:
    for word in ("one", "two"):
        assert worker.ask(word, 30)["echo"] == word
    assert "and one from C" in worker.log.read_text()


def test_a_failure_is_raised_and_the_worker_goes_on(worker: Worker) -> None:
    with pytest.raises(WorkerError, match="no such kernel"):
        worker.ask("fail", 30)
    assert worker.ask("after", 30)["echo"] == "after"


def test_silence_ends_after_the_timeout(worker: Worker) -> None:
    worker.ask("ready", 30)
    with pytest.raises(WorkerError, match="no answer within 0 s"):
        worker.ask("sleep", 0.1)


def test_a_death_is_reported_with_its_last_words(worker: Worker) -> None:
    with pytest.raises(WorkerError, match="exit status 1; last line of its log: out of memory"):
        worker.ask("die", 30)


def test_a_line_that_is_no_reply_is_refused(worker: Worker) -> None:
    with pytest.raises(WorkerError, match="b'not json', which is no JSON"):
        worker.ask("garbage", 30)


def test_close_kills_a_worker_that_does_not_listen(worker: Worker) -> None:
    with pytest.raises(WorkerError):
        worker.ask("sleep", 0.1)
    worker.close(patience=0.1)
    assert worker._process.returncode is not None
