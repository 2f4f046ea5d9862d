"""Kills runs of one model with SIGKILL, goes on with each, and holds it against a run that nobody killed.

Started as a process of its own, since it forks: ``python kills.py FOLDER COUNT SEED DATA MODEL [options of fit]``. The
processes that are killed are forks of it, so that no time goes to importing. Prints one JSON object.

Half of the kills come at a write: before it, with half of it done, or after it. One of these lies between
``config.json`` and the first checkpoint. The others come at any time. Some runs are killed again when they go on.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from folders import contents, differences

import unsup
import unsup.data
import unsup.report.page
from unsup.cli import main as command
from unsup.core import storage
from unsup.train.runs import Run

AGAIN = 0.25  # of the runs are killed a second time


def watch(moment: Callable[[str], None]) -> None:
    """Call ``moment`` before, within and after each write of this process."""
    write, append = storage.write_atomically, Run.append_event

    def write_watched(path: str | Path, content: bytes) -> None:
        path = Path(path)
        moment(f"before {path.name}")
        path.with_name(f".{path.name}.tmp").write_bytes(content[: len(content) // 2])
        moment(f"within {path.name}")
        write(path, content)
        moment(f"after {path.name}")

    def append_watched(self: Run, event: Any) -> None:
        moment("before an event")
        log, line = self.path / "events.jsonl", json.dumps(event)
        size = log.stat().st_size if log.exists() else 0
        with log.open("a") as file:
            file.write(line[: len(line) // 2])
        moment("within an event")
        os.truncate(log, size)
        append(self, event)
        moment("after an event")

    storage.write_atomically = write_watched
    Run.append_event = append_watched


def begin(words: list[str], folder: Path, seconds: float, moment: Callable[[str], None] | None = None) -> int:
    """Start `unsup fit` into ``folder``, or go on with what is there, in a fork; its process number."""
    resume = (folder / "config.json").exists()
    line = ["--resume"] if resume else [*words, "--checkpoint-seconds", str(seconds)]
    child = os.fork()
    if child == 0:
        out = os.open(folder.with_suffix(".out"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        status = 70
        try:
            if moment is not None:
                watch(moment)
            status = command.main(["fit", *line, "-o", str(folder), "--plain"])
        finally:
            os._exit(status)
    return child


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def at_moment(number: int) -> Callable[[str], None]:
    left = [number]

    def moment(name: str) -> None:
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return moment


def main(work: Path, count: int, seed: int, words: list[str]) -> dict[str, Any]:
    choose = random.Random(seed)
    data = unsup.load_data(words[0], **{k[2:]: int(v) for k, v in itertools.pairwise(words) if k in ("--n", "--limit")})
    unsup.data.load_data = lambda name, **options: data  # once for all forks
    unsup.report.page.write_page = lambda folder: None  # type: ignore[assignment]  # slow, and made of the rest

    with contextlib.redirect_stdout(sys.stderr):  # imports all that the forks need
        assert command.main(["fit", *words, "-o", str(work / "warm"), "--plain"]) == 0

    whole = work / "whole"
    started = time.monotonic()
    status = ended(begin(words, whole, 1e9))
    took = time.monotonic() - started
    if status:
        raise SystemExit(f"{' '.join(words)} ended with {status}: {whole.with_suffix('.out').read_text()}")
    names = work / "moments.txt"

    def note(name: str) -> None:
        with names.open("a") as file:
            file.write(name + "\n")

    found: dict[str, Any] = {"kills": 0, "again": 0, "alike": 0, "too late": 0, "before a checkpoint": 0, "faults": []}
    moments: dict[float, list[str]] = {}
    for seconds in (0.0, 1e9):
        names.unlink(missing_ok=True)
        assert ended(begin(words, work / f"watched-{seconds}", seconds, note)) == 0
        moments[seconds] = names.read_text().splitlines()

    i = -1
    while found["kills"] < count:
        i += 1
        folder, seconds = work / f"run-{i}", choose.choice((0.0, 0.0, 1e9))
        known = moments[seconds]
        by_time = i % 2 == 1
        if i == 0:
            number = choose.randrange(known.index("after config.json"), known.index("after last.safetensors"))
        else:
            number = choose.randrange(len(known))
        where = "at some time" if by_time else known[number]
        child = begin(words, folder, seconds, None if by_time else at_moment(number))
        if by_time:
            time.sleep(choose.uniform(0, took))
            os.kill(child, signal.SIGKILL)  # a child that has ended is still there to be waited for
        status = ended(child)
        found["kills" if status == -signal.SIGKILL else "too late"] += 1
        before = not any((folder / "checkpoints").glob("*.safetensors"))
        found["before a checkpoint"] += (folder / "config.json").exists() and before
        if choose.random() < AGAIN:
            status = ended(begin(words, folder, seconds, at_moment(choose.randrange(len(known)))))
            found["again"] += status == -signal.SIGKILL
        status = ended(begin(words, folder, seconds))
        other = [f"status {status}"] if status else differences(whole, folder)
        still = contents(folder)
        if i % 4 == 0 and (ended(begin(words, folder, seconds)) or contents(folder) != still):
            other.append("going on with the finished run changed it")
        if other:
            found["faults"].append(f"{where}: {other}; {folder.with_suffix('.out').read_text()[-300:]}")
        found["alike"] += not other
    return found


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])))
