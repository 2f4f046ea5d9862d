"""Models that do not fit are refused before they take memory or time; tiny ones are tiny on any event."""

from __future__ import annotations

import resource
import time

import pytest
import torch
from torch import nn

import unsup
from unsup.core import building, memory
from unsup.core.building import bounded
from unsup.core.config import AtLeast, Count, options_of
from unsup.core.errors import InputError
from unsup.core.event import BINARY, REAL, Event, Support
from unsup.core.registry import create, model_class, names
from unsup.testing.cases import law_cases

HUGE = 10**12
BYTES = Support("ordinal", 256)
LARGE = {
    "28×28 of 256 levels": Event((1, 28, 28), BYTES),
    "28×28 binary": Event((1, 28, 28), BINARY),
    "3×32×32 of 256 levels": Event((3, 32, 32), BYTES),
    "text of 64 of 256": Event((64,), Support("nominal", 256), layout="sequence"),
    "text of 256 of 256": Event((256,), Support("nominal", 256), layout="sequence"),
    "784 binary": Event((784,), BINARY),
    "1000 reals": Event((1000,), REAL),
    "1000 mixed columns": Event((1000,), (REAL, BYTES, Support("nominal", 50), BINARY) * 250),
}


@pytest.fixture(autouse=True)
def _soon_and_small():
    """Nothing here may take long, or memory that stays."""
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    yield
    assert time.monotonic() - started < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1.5e6  # KiB


def counts_of(name):
    """The options that hold whole numbers with a range, and whether several."""
    for option, (annotation, _) in options_of(vars(model_class(name))["__init__"]).items():
        text = str(annotation)
        if "int, AtLeast" in text.replace("typing.", "").replace("unsup.core.config.", ""):
            yield option, "tuple" in text


@pytest.mark.parametrize("name", [name for name in names() if any(counts_of(name))])
@pytest.mark.parametrize("value", [HUGE, 10**30, -HUGE, 2**63])
def test_huge_counts_are_refused(name, value):
    case = law_cases(name)[0]
    for option, several in counts_of(name):
        with pytest.raises(InputError, match=option):
            create(name, case.event, preset="tiny", **{option: (value,) if several else value})


@pytest.mark.slow
@pytest.mark.parametrize("name", names())
def test_the_largest_counts_are_refused_or_built_within_the_limit(name):
    """Every count at the most that an option may be, with half a gigabyte to build in."""
    case = law_cases(name)[0]
    for option, several in counts_of(name):
        options = {**case.beside, **case.options, option: (2**20, 2**20) if several else 2**20}
        with memory.within(2**29):
            try:
                model = create(name, case.event, preset="tiny", **options)
            except InputError:
                continue
            assert sum(t.numel() * t.element_size() for t in model.state_dict().values()) <= 2**29


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("shape", [(HUGE,), (10**30,), (1, 10**6, 10**6), (HUGE, 1, 1), (3, 2**40, 1)])
def test_huge_events_are_refused(name, shape):
    for support in (REAL, BINARY, BYTES):
        with pytest.raises(InputError):
            create(name, Event(shape, support), preset="tiny")


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("levels", [10**9, HUGE, 2**62])
def test_huge_levels_are_refused_or_need_nothing(name, levels):
    """Models whose size does not hang on the levels take them; the others are refused before they take memory."""
    for shape in ((2,), (1, 4, 4)):
        for kind in ("ordinal", "nominal"):
            with memory.within(2**31):
                try:
                    model = create(name, Event(shape, Support(kind, levels)), preset="tiny")
                except InputError:
                    continue
                assert model.parameter_count < 10**6


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("levels", [10**9, HUGE, 2**62])
@pytest.mark.parametrize("missing", [False, True])
def test_huge_levels_of_a_column_are_refused_or_need_nothing(name, levels, missing):
    for kind in ("ordinal", "nominal"):
        with memory.within(2**31):
            try:
                model = create(name, Event((2,), (Support(kind, levels), REAL), missing=missing), preset="tiny")
            except InputError:
                continue
            assert model.parameter_count < 10**6


@pytest.mark.parametrize("name", sorted({*names()} - {"fvsbn", "conditional-2d", "bayes-net"}))
def test_a_tiny_model_is_tiny_on_any_event(name):
    """64 numbers a level and 256 an entry: parameters, and what else is saved.

    Regressions and graphs of all pairs of entries have no widths to make small, and a pair is no large event.
    """
    tried = 0
    for told, event in LARGE.items():
        if model_class(name).refusal(event) is not None:
            continue
        levels = sum(s.levels if s.is_discrete else 1 for s in event.columns)
        model = create(name, event, preset="tiny")
        size = sum(t.numel() for t in model.state_dict().values())
        assert size <= 50_000 + 64 * levels + 256 * event.dims, told
        tried += 1
    assert tried


def test_the_refusal_tells_size_limit_and_what_to_shrink():
    with memory.within(10**8), pytest.raises(InputError) as caught:
        create("made", LARGE["28×28 of 256 levels"], hidden=(4000,))
    said = str(caught.value)
    assert "\n" not in said
    for word in ("made", "100 MB", "hidden=(4000,)", "--max-memory", "--preset tiny"):
        assert word in said, said


def test_the_sum_of_many_tensors_is_bounded():
    """No single one is too large; together they are."""
    event = Event((64,), REAL)
    with memory.within(10**7):
        create("nice", event, hidden=(512,), layers=4)
        with pytest.raises(InputError, match=r"parameters built so far"):
            create("nice", event, hidden=(512,), layers=100)


def test_what_torch_would_make_is_asked_before_it_is_made():
    made = {
        "outer product": lambda: torch.ones(10**6)[:, None] * torch.ones(10**6),
        "comparison": lambda: torch.arange(10**6)[:, None] >= torch.arange(10**6),
        "factory": lambda: torch.zeros(10**6, 10**6),
        "repeated": lambda: torch.ones(1000).repeat(10**9),
        "one-hot": lambda: nn.functional.one_hot(torch.zeros(10**6, dtype=torch.int64), 10**6),
        "drawn": lambda: torch.randn(HUGE),
        "too large for torch": lambda: torch.zeros(10**30),
        "a list": lambda: [0] * 10**15,
        "a range": lambda: list(range(10**30)),
    }
    for told, make in made.items():
        with memory.within(2**30), pytest.raises(InputError, match="too large"), bounded(told, {"width": 7}):
            make()


def test_what_takes_no_memory_is_let_through():
    with memory.within(2**28), bounded("m", {}):
        wide = torch.ones(1).expand(10**12)
        assert wide.numel() == 10**12
        nn.Linear(1000, 1000)


def test_an_error_of_the_model_itself_is_not_hidden():
    with pytest.raises(RuntimeError, match="shape"), bounded("m", {}):
        torch.ones(2).view(3)
    with pytest.raises(TypeError, match="unsupported"), bounded("m", {}):
        _ = 1 + "a"


def test_hooks_are_gone_afterwards():
    with bounded("m", {}):
        pass
    with memory.within(1000):
        nn.Linear(1000, 1000)


def test_a_refusal_leaves_the_mode_of_gradients(monkeypatch):
    monkeypatch.setattr(building, "_CALLS", 10)
    with pytest.raises(InputError, match="more than 10 operations"), bounded("m", {}), torch.no_grad():
        [torch.ones(1) for _ in range(20)]
    assert torch.is_grad_enabled()


@pytest.mark.slow
def test_building_under_a_bound_changes_no_number():
    for name in names():
        for case in law_cases(name)[:2]:
            options = {**case.beside, **case.options}
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(3)
                plain = model_class(name)(case.event, **{**model_class(name).presets["tiny"], **options})
            bound = create(name, case.event, preset="tiny", seed=3, **options)
            for key, tensor in plain.state_dict().items():
                assert torch.equal(tensor, bound.state_dict()[key]), (name, key)


def test_training_that_may_not_fit_is_said(capsys):
    data = unsup.load_data("digits")
    model = create("vae", data.event, preset="tiny")
    with memory.within(1000):
        unsup.fit(model, data, steps=1, progress="plain")
    assert "note: training needs about" in capsys.readouterr().err


def test_counts_of_options_of_ones_own_model_are_bounded():
    assert AtLeast(1).holds(2**20)
    assert Count.__metadata__ == (AtLeast(1),)
