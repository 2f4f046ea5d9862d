"""Mathematical properties (laws) of models: `check_model` tests them on any model."""

from unsup.testing import laws as _laws  # noqa: F401 - registers every law
from unsup.testing.abilities import ABILITIES, abilities_of
from unsup.testing.cases import Case, check_registry_name, examples, law_cases
from unsup.testing.check import Outcome, Report, check_model
from unsup.testing.law import LAWS, Law, LawViolation

__all__ = [
    "ABILITIES",
    "LAWS",
    "Case",
    "Law",
    "LawViolation",
    "Outcome",
    "Report",
    "abilities_of",
    "check_model",
    "check_registry_name",
    "examples",
    "law_cases",
]
