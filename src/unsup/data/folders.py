"""Folders of files of one kind: which files belong to it, their labels, and what is ignored."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unsup.core.errors import InputError
from unsup.data.examples import listing

_SPLIT_NAMES = {"train", "training", "val", "valid", "validation", "test"}


@dataclass(frozen=True)
class Listed:
    """The files of one kind in a folder, sorted by name.

    Attributes:
        files: all at the top level of the folder, or all one level deeper.
        names: their paths within the folder.
        labels: the names of the subfolders; empty if the files are at the top level.
        label: the number of the label of each file; empty if there are none.
        notes: what was ignored.
    """

    files: list[Path]
    names: list[str]
    labels: tuple[str, ...]
    label: list[int]
    notes: list[str]


def listed(path: Path, suffixes: tuple[str, ...], noun: str, expected: str) -> Listed:
    """The files in ``path``, or in its subfolders (one level), with one of these suffixes; hidden files are not used.

    Args:
        noun: the files in the plural, e.g. ``"images"``.
        expected: the kinds of files, for errors.

    Raises:
        InputError: no such files, files on both levels, or subfolders named after splits.
    """
    top = _visible(path)
    inside = [p for f in top if f.is_dir() for p in _visible(f)]
    files, deeper = ([p for p in level if p.is_file() and has_suffix(p, suffixes)] for level in (top, inside))
    known = {*files, *deeper, *(p for p in top if p.is_dir())}
    other = [str(p.relative_to(path)) for p in [*top, *inside] if p not in known]
    if files and deeper:
        raise InputError(
            f"{path} has {len(files)} {noun} at its top level and {len(deeper)} in subfolders; move all of them "
            "into subfolders (their names are the labels), or none"
        )
    if not files and not deeper:
        what = f"{len(other)} other files" if other else "it is empty"
        raise InputError(f"{path} has no {noun} ({what}); expected {expected}, at its top level or one folder deep")
    labels = sorted({p.parent.name for p in deeper})
    if set(labels) & _SPLIT_NAMES:
        raise InputError(
            f"the subfolders of {path} ({listing(labels)}) look like splits, not labels; use one of them, e.g. "
            f"{path / labels[0]}, which is split by a hash"
        )
    notes = [f"ignored {len(other)} files or folders that are not {noun}: {listing(other)}"] if other else []
    found = files or deeper
    names = [str(p.relative_to(path)) for p in found]
    return Listed(found, names, tuple(labels), [labels.index(p.parent.name) for p in deeper], notes)


def has_suffix(path: Path, suffixes: tuple[str, ...]) -> bool:
    return path.name.lower().endswith(suffixes)


def suffixes_in(path: Path) -> set[str]:
    """The suffixes of the files in a folder and one level deeper, in small letters."""
    top = _visible(path)
    inside = [p for f in top if f.is_dir() for p in _visible(f)]
    return {p.suffix.lower() for p in [*top, *inside] if p.is_file()}


def _visible(path: Path) -> list[Path]:
    """What is in a folder, in an order that does not depend on the file system."""
    return sorted((p for p in path.iterdir() if not p.name.startswith(".")), key=os.fsencode)


def skipped(bad: Sequence[str], total: int, path: Path, noun: str, mend: str) -> list[str]:
    """A note about files that cannot be read.

    Raises:
        InputError: more than half of the files cannot be read.
    """
    if 2 * len(bad) > total:
        raise InputError(f"{len(bad)} of {total} {noun} in {path} cannot be read: {listing(bad, 3)}; {mend}")
    return [f"skipped {len(bad)} of {total} {noun} that cannot be read: {listing(bad)}"] if bad else []
