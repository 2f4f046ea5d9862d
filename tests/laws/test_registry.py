"""Every model of the registry keeps every law on every one of its tiny cases."""

from __future__ import annotations

import functools
import importlib
from dataclasses import replace

import pytest

import unsup.core.rows
from unsup.core.config import normalise_options
from unsup.core.errors import InputError
from unsup.core.registry import model_class, names, row
from unsup.testing import LAWS, abilities_of, check_registry_name, law_cases
from unsup.testing.abilities import WORDS
from unsup.testing.check import judge
from unsup.testing.subject import Subject

SLOW = {
    "ffjord": (2, 3, 4),
    "flow++": (1, 2, 3),
    "glow": (4,),
    "maf": (9,),
    "naf": (2, 3, 4),
    "realnvp": (5, 6, 8),
    "residual-flow": (3, 4, 5),
    "spline-flow": (4, 6, 7, 8, 11),
    "vq-vae": (2,),
}
"""Cases whose laws take long; `make test-slow` has them."""
LONG = (
    *("accumulation", "bound-mass", "bound-tight", "completion", "compression", "descent", "fixed-point"),
    *("frequencies", "loss-is-likelihood", "missing-integrated", "no-memory", "opposition", "processes", "save-load"),
)
"""Laws that take long: after the first case of a model they are slow tests."""


@functools.cache
def _applicable() -> list:
    found = []
    for name in names():
        for number, case in enumerate(law_cases(name)):
            model = case.build()
            found += [
                pytest.param(
                    name, number, law.name, id=f"{name}-{number}-{law.name}", marks=_marks(name, number, law.name)
                )
                for law in LAWS.values()
                if law.applies(model) and (law.name != "oracle" or case.oracle is not None)
            ]
    return found


def _marks(name: str, number: int, law: str) -> list[pytest.MarkDecorator]:
    is_slow = number in SLOW.get(name, ()) or (law in LONG and number > 0)
    return [pytest.mark.slow] if is_slow else []


@functools.lru_cache(maxsize=1)
def _subject(name: str, number: int) -> Subject:
    """The model and data of a case; a check changes neither, so all laws of a case share them."""
    case = law_cases(name)[number]
    return Subject(case.build(), case.data(), 0, case.oracle)


@pytest.mark.parametrize(("name", "number", "law"), _applicable())
def test_law(name: str, number: int, law: str) -> None:
    case = law_cases(name)[number]
    outcome = judge(LAWS[law], _subject(name, number), case.exceptions)
    if outcome.status == "excepted":
        pytest.skip(outcome.detail)
    assert outcome.status == "passed", f"{case} breaks {law}: {outcome.detail}"


@pytest.mark.parametrize("name", names())
def test_abilities_in_the_row_are_the_capabilities_of_the_class(name: str) -> None:
    assert set(row(name).abilities) == set(abilities_of(model_class(name)))
    assert set(row(name).abilities) <= set(WORDS)


@pytest.mark.parametrize("name", names())
def test_presets(name: str) -> None:
    cls = model_class(name)
    assert {"tiny", "paper"} <= set(cls.presets)
    for preset in cls.presets.values():
        normalise_options(name, cls.__init__, preset)


@pytest.mark.parametrize("name", names())
def test_exceptions_name_laws(name: str) -> None:
    assert set(row(name).exceptions) <= set(LAWS)
    for case in law_cases(name):
        assert set(case.exceptions) <= set(LAWS)


def test_every_case_of_a_family_is_of_one_of_its_models() -> None:
    for family in {row(name).family for name in names()}:
        cases = importlib.import_module(f"unsup.testing.cases.{family}").CASES
        assert {case.model for case in cases} == set(names(family))
        assert [case for name in dict.fromkeys(c.model for c in cases) for case in law_cases(name)] == list(cases)


def test_a_model_without_cases_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, family, cases in (("one", "elsewhere", None), ("two", "elsewhere", "unsup.testing.cases.flows:CASES")):
        entry = replace(row("made"), name=name, family=family, cases=cases, target=f"mine:{name}")
        monkeypatch.setitem(unsup.core.rows._ROWS, name, entry)
        with pytest.raises(InputError, match=f"{name} has no law cases"):
            law_cases(name)


def test_every_law_applies_to_some_case() -> None:
    used = {parameter.values[2] for parameter in _applicable()}
    assert used == set(LAWS)


def test_check_registry_name_gives_a_report_a_case() -> None:
    reports = check_registry_name("histogram", laws=("normalised",))
    assert len(reports) == len(law_cases("histogram"))
    assert all(r.ok for r in reports)
    assert "normalised" in str(reports[0])
