"""The definition of a law, and the table of all laws."""

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
    """A model violates a law; the message says where and by how much."""


@dataclass(frozen=True)
class Law:
    """A property that all models of some kind must satisfy.

    Attributes:
        name: name in reports, exceptions and ``laws=``.
        statement: the law in one line.
        needs: description of the models that it applies to.
        applies: the same as a predicate.
        provided: whether the caller provided the other inputs of the law.
        check: raises `LawViolation` if the subject violates the law.
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
