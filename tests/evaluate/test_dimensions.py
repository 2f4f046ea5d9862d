"""Bits of each entry: they sum to the model's log_prob, and are those of an enumeration."""

import itertools
import math

import pytest
import torch

import unsup
from unsup.core.errors import InputError
from unsup.core.event import BINARY, REAL, Event, Support
from unsup.core.model import Factorises, keyed_generator
from unsup.core.registry import model_class, names
from unsup.evaluate.likelihood import bits_by_dimension, log_probs
from unsup.families.classical.histogram import Histogram
from unsup.testing.cases import Case, examples, law_cases
from unsup.testing.subject import Subject

PRODUCTS = tuple(name for name in names() if issubclass(model_class(name), Factorises))


def needs_a_condition(case):
    """Whether the model is conditioned on what it cannot sum over."""
    given = case.options.get("given")
    return given is not None and bool(given.shape)


# Two masks whose drawn orders are the same, and not the natural one.
BACKWARDS = Case("made", Event((2,), Support("ordinal", 3)), {"masks": 2, "order": "random", "mask_seed": 5})
CASES = [
    *(case for name in PRODUCTS for case in law_cases(name) if not (needs_a_condition(case) or case.event.open)),
    BACKWARDS,
]


def generic(case):
    subject = Subject(case.build(), case.data(), 0)
    return subject.generic(), subject


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_row_sums_to_log_prob(case):
    model, subject = generic(case)
    x = subject.x(model)[:40]
    bits = bits_by_dimension(model, x, seed=3)
    orders = getattr(model, "orders", torch.zeros(1, 1))
    if len(orders.unique(dim=0)) > 1:
        assert bits is None
        return
    assert bits.dtype == torch.float64
    assert bits.shape == (40, case.event.dims)
    expected = -log_probs(model, x, seed=3) / math.log(2)
    torch.testing.assert_close(bits.sum(1), expected, rtol=1e-11, atol=1e-9)


ENUMERABLE = [c for c in CASES if c.event.is_discrete and math.prod(s.levels for s in c.event.columns) <= 4096]


@pytest.mark.parametrize("case", ENUMERABLE, ids=str)
def test_every_entry_is_the_ratio_of_two_sums_over_all_values(case):
    """p(x_d | x_<d) from nothing but log_prob of every possible example."""
    model, _ = generic(case)
    ranges = [range(s.low, s.low + s.levels) for s in case.event.columns]
    everything = torch.tensor(list(itertools.product(*ranges)))
    x = everything.view(-1, *case.event.shape).to(case.event.dtype)
    bits = bits_by_dimension(model, x)
    if bits is None:
        assert len(model.orders.unique(dim=0)) > 1
        return
    mass = log_probs(model, x).exp()
    positions = model.orders[0] if hasattr(model, "orders") else model.positions
    order = list(range(case.event.dims)) if positions is None else positions.argsort().tolist()
    rows = torch.randperm(len(x), generator=keyed_generator(0))[:6].tolist()
    for row, place in itertools.product(rows, range(case.event.dims)):
        before = (everything[:, order[:place]] == everything[row, order[:place]]).all(1)
        upto = before & (everything[:, order[place]] == everything[row, order[place]])
        expected = -math.log2(float(mass[upto].sum() / mass[before].sum()))
        assert float(bits[row, order[place]]) == pytest.approx(expected, abs=1e-8)


def test_the_backward_case_is_one():
    assert BACKWARDS.build().orders.tolist() == [[2, 1], [2, 1]]


def test_a_density_of_another_kind_has_no_parts():
    for name in ("vae", "realnvp", "gan"):
        event = Event((2,), REAL)
        assert bits_by_dimension(unsup.create(name, event, preset="tiny"), torch.zeros(3, 2)) is None


def test_what_was_never_seen_costs_infinitely_many_bits_at_the_entry_where_it_differs():
    event = Event((3,), Support("ordinal", 3))
    x = torch.tensor([[0, 0, 0], [0, 1, 0], [1, 1, 1], [0, 0, 0]])
    model = Histogram(event, smoothing=0.0, joint="always")
    model.maximize(model.statistics(unsup.Batch(x)))
    bits = bits_by_dimension(model, torch.tensor([[0, 0, 0], [0, 2, 0], [2, 0, 0]]))
    assert bits.tolist() == [
        pytest.approx([math.log2(4 / 3), math.log2(3 / 2), 0.0]),
        pytest.approx([math.log2(4 / 3), math.inf, 0.0]),
        pytest.approx([math.inf, 0.0, 0.0]),
    ]


def test_dropout_is_off_and_the_mode_of_the_model_is_kept():
    event = Event((1, 3, 3), BINARY)
    model = unsup.create("made", event, hidden=(16,), dropout=0.9).train()
    x = examples(event, 300).x
    bits = bits_by_dimension(model, x)
    assert model.training
    assert torch.equal(bits, bits_by_dimension(model, x))
    torch.testing.assert_close(bits.sum(1), -log_probs(model, x) / math.log(2), rtol=1e-5, atol=1e-4)


def test_examples_of_another_shape_are_refused():
    with pytest.raises(InputError, match="x has shape"):
        bits_by_dimension(unsup.create("made", Event((3,), BINARY)), torch.zeros(2, 4))
