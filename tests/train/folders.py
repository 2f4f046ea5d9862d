"""Run folders held against each other, and what a kill at any write leaves of one."""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from unsup.core import storage
from unsup.core.storage import load_tensors
from unsup.train.runs import Run


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def without_seconds(record: dict[str, Any]) -> dict[str, Any]:
    """A record without what clocks say, and without how often it was saved, in which compared runs may differ."""
    kept = {k: v for k, v in record.items() if k not in ("seconds", "validation_took")}
    if "run" in kept:
        training = {k: v for k, v in kept["run"]["training"].items() if k != "checkpoint_seconds"}
        kept["run"] = kept["run"] | {"training": training}
    return kept


def events(folder: Path) -> list[dict[str, Any]]:
    """The lines of the log apart from the seconds, none left out."""
    log = folder / "events.jsonl"
    lines = log.read_text().splitlines() if log.is_file() else []
    return [without_seconds(json.loads(line)) for line in lines]


def differences(a: Path, b: Path) -> list[str]:
    """What distinguishes two finished runs, besides their clocks."""
    found = []
    for name in ("last", "best"):
        (left, left_record), (right, right_record) = (load_tensors(Run(r).checkpoint(name)) for r in (a, b))
        if without_seconds(left_record) != without_seconds(right_record):
            keys = [k for k in left_record | right_record if left_record.get(k) != right_record.get(k)]
            found.append(f"the record of {name}: {[(k, left_record.get(k), right_record.get(k)) for k in keys]}")
        if left.keys() != right.keys():
            found.append(f"the names in {name}: {left.keys() ^ right.keys()}")
        else:
            found += [
                f"{k} in {name}" for k in left if left[k].dtype != right[k].dtype or not torch.equal(left[k], right[k])
            ]
    if events(a) != events(b):
        first = next((i, x, y) for i, (x, y) in enumerate(itertools.zip_longest(events(a), events(b))) if x != y)
        found.append(f"event {first}")
    if contents(a / "samples") != contents(b / "samples"):
        found.append("samples")
    found += [f"{name} in one only" for name in contents(a).keys() ^ contents(b).keys()]
    return found


@contextlib.contextmanager
def kept_at_every_write(folder: Path, into: Path) -> Iterator[list[Path]]:
    """Inside, each write to ``folder`` leaves copies of it: before, half done, and after, as a kill there would."""
    found: list[Path] = []
    write, append = storage.write_atomically, Run.append_event

    def copy(kind: str, name: str) -> Path:
        place = into / f"{len(found):04d}-{kind}-{name}"
        shutil.copytree(folder, place)
        found.append(place)
        return place

    def write_watched(path: str | Path, content: bytes) -> None:
        path = Path(path)
        if folder not in path.parents:
            return write(path, content)
        half = copy("in", path.name) / path.relative_to(folder)
        half.with_name(f".{half.name}.tmp").write_bytes(content[: len(content) // 2])
        write(path, content)
        copy("after", path.name)

    def append_watched(self: Run, event: Any) -> None:
        if self.path == folder:
            with (copy("in", "events.jsonl") / "events.jsonl").open("a") as file:
                line = json.dumps(event)
                file.write(line[: len(line) // 2])
        append(self, event)
        if self.path == folder:
            copy("after", "events.jsonl")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "write_atomically", write_watched)
        patch.setattr(Run, "append_event", append_watched)
        yield found
