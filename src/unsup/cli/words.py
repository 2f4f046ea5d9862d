"""Split a command line into flags with their values and positional words, in any order."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Words:
    """The words of a command line.

    Attributes:
        flags: every known flag with the values that follow it.
        positionals: words that belong to no flag, in order.
        loose: words after unknown flags: their values, or positionals.
        unknown: unknown flags.
        ended: words that are not numbers, directly after a list of numbers, with the flag of the list.
    """

    flags: tuple[tuple[str, ...], ...]
    positionals: tuple[str, ...]
    loose: tuple[str, ...]
    unknown: tuple[str, ...]
    ended: Mapping[str, str] = field(default_factory=dict)

    @property
    def ordered(self) -> list[str]:
        """The known words in the order that argparse needs: positionals first."""
        flags = [word for group in self.flags for word in group]
        if any(word.startswith("-") for word in self.positionals):
            return [*flags, "--", *self.positionals]
        return [*self.positionals, *flags]

    def has(self, *names: str) -> bool:
        """Whether one of the flags ``names`` is given."""
        return any(group[0] in names for group in self.flags)

    def value(self, *names: str) -> str | None:
        """The value of a flag with one value, by all its ``names``; the last one is used; None without any."""
        found = None
        for first, *values in self.flags:
            flag, attached, own = first.partition("=")
            if flag in names:
                found = own if attached else next(iter(values), found)
            elif first[:2] in names:  # -oFILE
                found = first[2:]
        return found


def split_words(
    arguments: Sequence[str], known: Mapping[str, argparse.Action], positionals: Sequence[argparse.Action]
) -> Words:
    """Split ``arguments`` by the known flags.

    A flag takes as many words as it needs. A list of numbers ends at the first word that is not a number. A list of
    words ends at the next flag, but leaves its last words for missing positionals. Words after ``--`` are positional.

    Args:
        known: flags with their actions.
        positionals: the actions of positional words.
    """
    groups: list[list[str]] = []
    lists: list[
        tuple[list[str], int, int]
    ] = []  # lists of words: the group, the start of its values, the minimum number
    placed: dict[int, str] = {}
    loose: list[str] = []
    unknown: list[str] = []
    ended: dict[str, str] = {}
    behind_unknown, at = False, 0
    while at < len(arguments):
        word = arguments[at]
        at += 1
        if word == "--":
            placed |= dict(enumerate(arguments[at:], at))
            break
        if not is_flag(word):
            if behind_unknown:
                loose.append(word)
            else:
                placed[at - 1] = word
            continue
        action, complete = _action(word, known)
        behind_unknown = action is None and not complete
        if action is None:
            unknown.append(word.partition("=")[0])
            continue
        group = [word]
        groups.append(group)
        least, most = (0, 0) if complete else _arity(action)
        start = at
        while at < len(arguments) and at - start < most and not is_flag(arguments[at]):
            if at - start >= least and not _converts(action, arguments[at]):
                ended[arguments[at]] = word
                break
            group.append(arguments[at])
            at += 1
        if most > least and action.type in (None, str):
            lists.append((group, start, least))
    lacking = sum(_slots(action) for action in positionals) - len(placed) - len(loose)
    while lacking > 0 and (full := [entry for entry in lists if len(entry[0]) - 1 > entry[2]]):
        for group, start, _ in full[::-1][:lacking]:
            placed[start + len(group) - 1] = group.pop()
            lacking -= 1
    words = tuple(placed[i] for i in sorted(placed))
    return Words(tuple(map(tuple, groups)), words, tuple(loose), tuple(unknown), ended)


def is_flag(word: str) -> bool:
    """Whether a word is a flag: it starts with a dash and is not a number.

    >>> [is_flag(w) for w in ("--lr", "-n", "-1e-3", "-", "made")]
    [True, True, False, False, False]
    """
    return len(word) > 1 and word[0] == "-" and not is_number(word)


def is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _action(word: str, known: Mapping[str, argparse.Action]) -> tuple[argparse.Action | None, bool]:
    """The flag of a word, and whether the word includes its value: ``--lr=0.1``, ``-n64``."""
    flag, attached, _ = word.partition("=")
    if flag in known:
        return known[flag], bool(attached)
    short = known.get(word[:2]) if word[1] != "-" else None
    return (short, True) if short is not None and short.nargs != 0 else (None, bool(attached))


def _arity(action: argparse.Action) -> tuple[int, float]:
    """The minimum and maximum number of words after a flag."""
    match action.nargs:
        case None:
            return 1, 1
        case "?":
            return 0, 1
        case "*":
            return 0, math.inf
        case "+":
            return 1, math.inf
        case _:
            return int(action.nargs), int(action.nargs)


def _slots(action: argparse.Action) -> int:
    """The number of words that a positional should have, even if it is optional."""
    return 0 if action.nargs == "*" else 1


def _converts(action: argparse.Action, word: str) -> bool:
    if not callable(action.type) or action.type is str:
        return True
    try:
        action.type(word)
    except (ValueError, TypeError, argparse.ArgumentTypeError):
        return False
    return True
