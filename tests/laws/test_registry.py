"""Every model of the registry keeps every law on every one of its tiny cases."""

from __future__ import annotations

import pytest

from unsup.core.config import normalise_options
from unsup.core.registry import model_class, names, row
from unsup.testing import ABILITIES, LAWS, Case, abilities_of, check_registry_name, law_cases
from unsup.testing import cases as cases_module


def _applicable() -> list:
    found = []
    for name in names():
        for number, case in enumerate(law_cases(name)):
            model = case.build()
            found += [
                pytest.param(case, law.name, id=f"{name}-{number}-{law.name}")
                for law in LAWS.values()
                if law.applies(model)
            ]
    return found


@pytest.mark.parametrize(("case", "law"), _applicable())
def test_law(case: Case, law: str) -> None:
    (outcome,) = case.check(laws=(law,)).outcomes
    if outcome.status == "excepted":
        pytest.skip(outcome.detail)
    assert outcome.status == "passed", f"{case} breaks {law}: {outcome.detail}"


@pytest.mark.parametrize("name", names())
def test_abilities_in_the_row_are_the_capabilities_of_the_class(name: str) -> None:
    assert set(row(name).abilities) == set(abilities_of(model_class(name)))
    assert set(row(name).abilities) <= set(ABILITIES)


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


def test_every_name_has_cases_and_every_case_a_name() -> None:
    assert set(cases_module._CASES) == set(names())
    assert all(case.model == name for name in names() for case in law_cases(name))


def test_every_law_applies_to_some_case() -> None:
    used = {parameter.values[1] for parameter in _applicable()}
    assert used == set(LAWS)


def test_check_registry_name_gives_a_report_a_case() -> None:
    reports = check_registry_name("histogram", laws=("normalised",))
    assert len(reports) == len(law_cases("histogram"))
    assert all(r.ok for r in reports)
    assert "normalised" in str(reports[0])
