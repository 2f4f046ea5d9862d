"""Check laws on a model and report the results."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from unsup.core.batch import Batch
from unsup.core.errors import InputError, nearest
from unsup.core.model import Model
from unsup.core.random import Rows
from unsup.core.registry import row_of
from unsup.testing.law import LAWS, Law, LawViolation
from unsup.testing.subject import Oracle, Subject

if TYPE_CHECKING:
    from unsup.data import Data

Status = Literal["passed", "failed", "excepted", "not-applicable"]
MOST_EXAMPLES = 64
# Exceptions that a broken model may raise during a law; the model has failed, not the check.
_BREAKAGES = (ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class Outcome:
    """The result of one law for a model."""

    law: str
    status: Status
    detail: str
    seconds: float


@dataclass(frozen=True)
class Report:
    """The results of all laws for a model; ``str(report)`` is a table."""

    title: str
    outcomes: tuple[Outcome, ...]

    @property
    def ok(self) -> bool:
        return not self.failures

    @property
    def failures(self) -> tuple[Outcome, ...]:
        return tuple(o for o in self.outcomes if o.status == "failed")

    def raise_for_failures(self) -> None:
        """Raise `LawViolation` with all violated laws, if any."""
        if self.failures:
            broken = "; ".join(f"{o.law}: {o.detail}" for o in self.failures)
            raise LawViolation(f"{self.title} violates {len(self.failures)} law(s): {broken}")

    def __str__(self) -> str:
        return "\n".join(self.lines)

    @property
    def lines(self) -> list[str]:
        """The lines of the table."""
        width = max((len(o.law) for o in self.outcomes), default=0)
        counts = {s: sum(o.status == s for o in self.outcomes) for s in ("passed", "failed", "excepted")}
        head = f"{self.title}: " + ", ".join(f"{n} {s}" for s, n in counts.items() if n or s == "passed")
        rows = [f"  {o.law:<{width}}  {o.status:<14}  {o.seconds:6.2f} s  {o.detail}".rstrip() for o in self.outcomes]
        return [head, *rows]


def check_model(
    model: Model,
    data: Batch | Data,
    *,
    laws: Sequence[str] | None = None,
    seed: int = 0,
    exceptions: Mapping[str, str] | None = None,
    oracle: Oracle | None = None,
    title: str | None = None,
) -> Report:
    """Check all laws that the capabilities of the model imply. The model is not changed.

    Args:
        model: any model; laws work on copies of it.
        data: examples of its event, as a `Batch` or as data from `unsup.load_data`; at most 64 are used.
        laws: names of the laws to run; None for all.
        seed: seed of all draws. The result is a function of model, data and seed.
        exceptions: laws to skip, with reasons, in addition to those of the registry row.
        oracle: independent computation of log p(x), ``oracle(model, x, data)``, for the law ``oracle``.
        title: title of the report; None for the class and event.

    Raises:
        InputError: an unknown law, or examples that do not fit the event of the model.

    >>> import torch, unsup
    >>> from unsup.testing import check_model
    >>> event = unsup.Event((3,), unsup.Support("binary"))
    >>> model = unsup.create("made", event, preset="tiny")
    >>> report = check_model(model, unsup.Batch(torch.randint(0, 2, (32, 3))), laws=["normalised"])
    >>> report.outcomes[0].status
    'passed'
    """
    for name in laws or ():
        if name not in LAWS:
            raise InputError(f"there is no law {name!r}{nearest(name, LAWS)}")
    batch = (data if isinstance(data, Batch) else _examples_of(data, model)).take(slice(0, MOST_EXAMPLES))
    model.event.check(batch.x, batch.lengths)
    subject = Subject(model, batch.to(model.device), seed, oracle)
    chosen = [LAWS[name] for name in (LAWS if laws is None else laws)]
    return Report(
        title or f"{type(model).__name__} on {model.event}",
        tuple(judge(law, subject, exceptions) for law in chosen),
    )


def judge(law: Law, subject: Subject, exceptions: Mapping[str, str] | None = None) -> Outcome:
    """The result of one law; ``exceptions`` are added to those of the registry row."""
    excepted = {**_registered_exceptions(type(subject.model)), **(exceptions or {})}
    if not (law.applies(subject.model) and law.provided(subject)):
        return Outcome(law.name, "not-applicable", f"needs {law.needs}", 0.0)
    if law.name in excepted:
        return Outcome(law.name, "excepted", excepted[law.name], 0.0)
    start = time.perf_counter()
    status, detail = _run(law, subject)
    return Outcome(law.name, status, detail, time.perf_counter() - start)


def _run(law: Law, subject: Subject) -> tuple[Status, str]:
    # A model that incorrectly draws from the global generator must neither affect the caller nor make the result
    # depend on earlier calls.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(subject.seed)
        try:
            law.check(subject)
        except LawViolation as violation:
            return "failed", str(violation)
        except _BREAKAGES as error:
            return (
                "failed",
                f"raised {type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}",
            )
    return "passed", law.statement


def _examples_of(data: Data, model: Model) -> Batch:
    rows = torch.arange(min(MOST_EXAMPLES, len(data.train)))
    return data.train.step(rows, model.streams, seed=0, position=0, part=Rows(len(rows), 0, len(rows)))


def _registered_exceptions(cls: type[Model]) -> Mapping[str, str]:
    """The exceptions of the rows of the class and its parents: a subclass inherits the exceptions of its parents."""
    found: dict[str, str] = {}
    for parent in reversed(cls.__mro__):
        declared = row_of(parent)
        if declared is not None:
            found |= declared.exceptions
    return found
