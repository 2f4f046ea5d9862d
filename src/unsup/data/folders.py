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
    top, inside = _levels(path)
    files, deeper = ([e for e in level if e.is_file and has_suffix(e.path, suffixes)] for level in (top, inside))
    known = {e.name for e in (*files, *deeper, *(e for e in top if e.is_dir))}
    other = [e.name for e in (*top, *inside) if e.name not in known]
    if files and deeper:
        raise InputError(
            f"{path} has {len(files)} {noun} at its top level and {len(deeper)} in subfolders; move all of them "
            "into subfolders (their names are the labels), or none"
        )
    if not files and not deeper:
        what = f"{len(other)} other files" if other else "it is empty"
        raise InputError(f"{path} has no {noun} ({what}); expected {expected}, at its top level or one folder deep")
    labels = sorted({e.path.parent.name for e in deeper})
    if set(labels) & _SPLIT_NAMES:
        raise InputError(
            f"the subfolders of {path} ({listing(labels)}) look like splits, not labels; use one of them, e.g. "
            f"{path / labels[0]}, which is split by a hash"
        )
    notes = [f"ignored {len(other)} files or folders that are not {noun}: {listing(other)}"] if other else []
    found, numbers = files or deeper, {label: i for i, label in enumerate(labels)}
    return Listed(
        [e.path for e in found],
        [e.name for e in found],
        tuple(labels),
        [numbers[e.path.parent.name] for e in deeper],
        notes,
    )


def has_suffix(path: Path, suffixes: tuple[str, ...]) -> bool:
    return path.name.lower().endswith(suffixes)


def suffixes_in(path: Path) -> set[str]:
    """The suffixes of the files in a folder and one level deeper, in small letters."""
    return {e.path.suffix.lower() for level in _levels(path) for e in level if e.is_file}


@dataclass(frozen=True)
class _Entry:
    """What is in a folder; ``name`` is its path within the folder that is read."""

    path: Path
    name: str
    is_file: bool
    is_dir: bool


def _levels(path: Path) -> tuple[list[_Entry], list[_Entry]]:
    """What is in a folder, and in its subfolders, in an order that does not depend on the file system."""
    top = _visible(path, "")
    return top, [e for folder in top if folder.is_dir for e in _visible(folder.path, f"{folder.name}/")]


def _visible(path: Path, before: str) -> list[_Entry]:
    with os.scandir(path) as entries:
        found = [entry for entry in entries if not entry.name.startswith(".")]
    found.sort(key=lambda entry: os.fsencode(entry.name))
    return [_entry(path / entry.name, before, entry) for entry in found]


def _entry(path: Path, before: str, entry: os.DirEntry[str]) -> _Entry:
    if entry.is_symlink():  # which may be a circle
        return _Entry(path, before + entry.name, path.is_file(), path.is_dir())
    return _Entry(path, before + entry.name, entry.is_file(), entry.is_dir())


def skipped(bad: Sequence[str], total: int, path: Path, noun: str, mend: str) -> list[str]:
    """A note about files that cannot be read.

    Raises:
        InputError: more than half of the files cannot be read.
    """
    if 2 * len(bad) > total:
        raise InputError(f"{len(bad)} of {total} {noun} in {path} cannot be read: {listing(bad, 3)}; {mend}")
    return [f"skipped {len(bad)} of {total} {noun} that cannot be read: {listing(bad)}"] if bad else []
