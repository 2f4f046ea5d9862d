"""What a law is, and the table of all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unsup.core.errors import UnsupError
from unsup.core.model import Model

if TYPE_CHECKING:
    from unsup.testing.subject import Subject

Check = Callable[["Subject"], None]


class LawViolation(UnsupError, AssertionError):
    """A model breaks a law; the message says where and by how much."""


@dataclass(frozen=True)
class Law:
    """One thing that every model of some kind must keep.

    Attributes:
        name: what reports, exceptions and ``laws=`` call it.
        statement: the law in one line.
        needs: which models it is about, in words.
        applies: the same as a predicate.
        provided: whether the caller gave what the law needs besides the model.
        check: raises `LawViolation` when the subject breaks the law.
    """

    name: str
    statement: str
    needs: str
    applies: Callable[[Model], bool]
    provided: Callable[[Subject], bool]
    check: Check


LAWS: dict[str, Law] = {}


def law(
    name: str,
    statement: str,
    *,
    needs: str = "any model",
    applies: Callable[[Model], bool] = lambda model: True,
    provided: Callable[[Subject], bool] = lambda subject: True,
) -> Callable[[Check], Check]:
    """Register the decorated function as the law ``name``."""

    def register(check: Check) -> Check:
        LAWS[name] = Law(name, statement, needs, applies, provided, check)
        return check

    return register


def require(condition: bool, detail: str) -> None:
    """Raise `LawViolation` with ``detail`` unless ``condition`` holds."""
    if not condition:
        raise LawViolation(detail)
