"""Integer frequencies from log-probabilities: exact sums, the exponential table, the rate that rounding costs."""

from __future__ import annotations

from decimal import Decimal, getcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unsup.coding import tables
from unsup.coding.tables import (
    MAX_SYMBOLS,
    STEPS_PER_BIT,
    TOTAL,
    bernoulli_frequencies,
    bernoulli_grid,
    code_length,
    frequencies,
    settle,
    to_grid,
)
from unsup.core.errors import InputError


def log_probabilities(rows: int, symbols: int, concentration: float, seed: int = 0) -> np.ndarray:
    draws = np.random.default_rng(seed).gamma(concentration, size=(rows, symbols)) + 1e-300
    return np.log(draws / draws.sum(1, keepdims=True))


def assert_table(table: np.ndarray) -> None:
    assert table.dtype == np.int64
    assert (table.sum(1) == TOTAL).all()
    assert table.min() >= 1


# --- the exponential --------------------------------------------------------------------------------------------------


def test_exponential_table_is_the_floor_of_the_exact_power():
    getcontext().prec = 60
    for step in range(STEPS_PER_BIT):
        exact = Decimal(2) ** (Decimal(37) - Decimal(step) / 256)
        assert tables._exponential(step) == int(exact)


def test_weights_of_all_octaves_are_floors_of_exact_powers():
    getcontext().prec = 60
    for alphabet_bits, largest in [(1, 37), (8, 30), (16, 22)]:
        weights = tables._weights(alphabet_bits)
        for step in [0, 1, 255, 256, 257, 2000, 5001, 9471, 9472, 9728]:
            assert weights[step] == int(Decimal(2) ** (Decimal(largest) - Decimal(step) / 256))


# --- rows -------------------------------------------------------------------------------------------------------------

ADVERSARIAL = {
    "all mass in the first": lambda k: [0.0] + [-np.inf] * (k - 1),
    "all mass in the last": lambda k: [-np.inf] * (k - 1) + [0.0],
    "equal": lambda k: [0.0] * k,
    "equal with an offset": lambda k: [1e6] * k,
    "very small": lambda k: [0.0] + [-1e5] * (k - 1),
    "smallest floats": lambda k: [5e-324] + [-5e-324] * (k - 1),
    "largest range": lambda k: [0.0] + [-1.7e308] * (k - 1),
    "geometric": lambda k: list(-np.arange(k, dtype=float)),
    "one far above many": lambda k: [16.6] + [0.0] * (k - 1),
    "just under the smallest weight": lambda k: [0.0] + [-22.0001 * np.log(2)] * (k - 1),
    "two halves": lambda k: [0.0] * (k // 2) + [-12.0] * (k - k // 2),
}


@pytest.mark.parametrize("symbols", [1, 2, 3, 4, 5, 255, 256, 257, 4097, MAX_SYMBOLS])
@pytest.mark.parametrize("kind", ADVERSARIAL)
def test_sum_and_floor_hold_for_adversarial_rows(symbols, kind):
    row = np.array([ADVERSARIAL[kind](symbols)])
    table = frequencies(to_grid(row).steps)
    assert_table(table)
    p = np.exp2(to_grid(row).steps / 256 - to_grid(row).steps.max() / 256)
    exact = p / p.sum() * (TOTAL - symbols) + 1
    lost = (p / p.sum())[p < 2.0**-22].sum() * TOTAL  # weights below the resolution are 0
    assert np.abs(table - exact).max() <= 3 + 2 * lost + exact.max() * symbols * 2.0**-22 / p.sum()


@given(
    st.lists(
        st.one_of(st.floats(-1e4, 1e4), st.just(-np.inf), st.floats(-50, 0)),
        min_size=1,
        max_size=40,
    ).filter(lambda row: max(row) > -np.inf)
)
@settings(deadline=None, max_examples=300)
def test_sum_floor_and_order_hold_for_any_row(row):
    table = frequencies(to_grid(np.array([row])).steps)
    assert_table(table)
    order = np.argsort(row, kind="stable")
    assert (np.diff(table[0][order]) >= -3).all()  # as likely symbols as given, up to the rounding of both ends


def brute_force(steps: list[int]) -> list[int]:
    """The rule of the docstring with Python's integers."""
    k = len(steps)
    bits = 38 - (k - 1).bit_length() if k > 1 else 37
    weights = []
    for step in steps:
        octave, within = divmod(max(steps) - step, 256)
        weights.append(tables._exponential(within) >> (37 - bits + octave))
    share = ((TOTAL - k) << 38) // sum(weights)
    ends = [(sum(weights[: i + 1]) * share >> 38) + i + 1 for i in range(k)]
    ends[-1] = TOTAL
    return [end - start for start, end in zip([0, *ends[:-1]], ends, strict=True)]


@pytest.mark.parametrize("symbols", [1, 2, 3, 17, 256])
def test_table_is_the_documented_rule(symbols):
    steps = to_grid(log_probabilities(20, symbols, 0.1)).steps
    assert frequencies(steps).tolist() == [brute_force(row) for row in steps.tolist()]


def test_products_stay_below_the_largest_integer():
    """Python's integers agree where the intermediate sums are largest: equal weights, the largest alphabets."""
    for symbols in [2, 4, 65_535, MAX_SYMBOLS]:
        weights = tables._weights((symbols - 1).bit_length())
        assert symbols * int(weights[0]) <= 1 << 38
        table = frequencies(np.zeros((1, symbols), np.int64))
        assert np.ptp(table) <= 3


def test_blocks_of_rows_do_not_change_the_table():
    values = log_probabilities(2000, 100, 0.3)
    whole = to_grid(values)
    assert (whole.steps == np.concatenate([to_grid(values[i : i + 1]).steps for i in range(2000)])).all()
    table = frequencies(whole.steps)
    assert (table == np.concatenate([frequencies(whole.steps[i : i + 7]) for i in range(0, 2000, 7)])).all()


def test_no_rows():
    grid = to_grid(np.zeros((0, 5)))
    assert grid.steps.shape == (0, 5)
    assert grid.near.shape == (0,)
    assert frequencies(grid.steps).shape == (0, 5)
    assert bernoulli_frequencies(bernoulli_grid(np.zeros(0)).steps).shape == (0, 2)


# --- two machines -----------------------------------------------------------------------------------------------------


def test_entries_near_a_boundary_are_reported_and_no_others():
    step = np.log(2) / 256
    steps = np.array([[0.0, -0.5, -0.4999, -1.5 + 1e-10, -1.5 - 1e-10, -2.0, -2.5 + 1e-7]])
    assert to_grid(steps * step).near.tolist() == [1, 3, 4]
    rows = np.repeat(steps, 3, 0)
    assert to_grid(rows * step).near.tolist() == [1, 3, 4, 8, 10, 11, 15, 17, 18]


def test_flat_indices_count_through_all_blocks():
    values = np.zeros((3000, 100))
    at = np.array([0, 5, 99_999, 70_001, 299_999])
    values.flat[at] = -0.5 * np.log(2) / 256
    assert to_grid(values).near.tolist() == sorted(at)


def test_far_entries_are_not_reported():
    step = np.log(2) / 256
    assert to_grid(np.array([[0.0, -(40 * 256 + 0.5) * step, -np.inf]])).near.size == 0
    assert bernoulli_grid(np.array([np.inf, -np.inf, 40.5 * 256 * step])).near.size == 0


@pytest.mark.parametrize("error", [1e-15, 1e-13, 4e-13])
def test_differences_of_machines_change_only_reported_entries(error):
    """The claim on which portable files rest, on values that were made to lie at boundaries far too often."""
    rng = np.random.default_rng(1)
    values = log_probabilities(4000, 17, 0.3)
    half = (np.rint(values * 256 / np.log(2)) + 0.5) * np.log(2) / 256
    values = np.where(rng.random(values.shape) < 0.2, half * (1 + rng.normal(scale=1e-12, size=values.shape)), values)
    other = values * (1 + error * rng.uniform(-1, 1, values.shape)) + error * rng.uniform(-1, 1, values.shape)
    here, there = to_grid(values), to_grid(other)
    changed = np.flatnonzero(frequencies(here.steps) != frequencies(there.steps))
    if error > 1e-14:
        assert changed.size  # without the report files would be lost
    settled = settle(there.steps, here.near, here.steps.flat[here.near] % 4)
    assert (frequencies(settled) == frequencies(here.steps)).all()


@given(st.lists(st.integers(-10_000, 10_000), min_size=1, max_size=20), st.data())
def test_settle_restores_neighbouring_steps(steps, data):
    steps = np.array([steps])
    at = np.array(sorted(data.draw(st.sets(st.integers(0, steps.size - 1)))), np.int64)
    other = steps.copy()
    other.flat[at] += np.array(data.draw(st.lists(st.integers(-1, 1), min_size=at.size, max_size=at.size)), np.int64)
    assert (settle(other, at, steps.flat[at] % 4) == steps).all()


def test_reports_are_rare():
    grid = to_grid(log_probabilities(40_000, 256, 1.0))
    assert grid.near.size <= 3  # of 10 million; the exceptions of a file cost nothing


# --- rate -------------------------------------------------------------------------------------------------------------


def loss(values: np.ndarray, table: np.ndarray) -> float:
    """Bits a symbol that coding with ``table`` costs above the entropy: the divergence, as an exact sum."""
    p = np.exp(values)
    return float((p * (values / np.log(2) - np.log2(table / TOTAL))).sum() / len(values))


# Measured: 6e-8 to 1.5e-7, 4e-7 to 8e-7, 4.4e-7 to 1.1e-5, 6e-5 to 3.6e-3. The floor of 1 alone costs
# log2(1/(1 − K 2^−24)): 1.7e-7, 1.5e-6, 2.2e-5, 5.6e-3.
@pytest.mark.parametrize("concentration", [0.01, 0.05, 0.3, 1.0, 10.0])
@pytest.mark.parametrize(("symbols", "rows"), [(2, 100_000), (17, 10_000), (256, 1000), (MAX_SYMBOLS, 4)])
def test_rate_loss(symbols, rows, concentration):
    values = log_probabilities(rows, symbols, concentration)
    lost = loss(values, frequencies(to_grid(values).steps))
    assert -1e-9 < lost < 1e-6 - np.log2(1 - symbols / TOTAL)


@pytest.mark.parametrize("concentration", [0.05, 1.0])
def test_grid_alone_costs_half_a_millionth_of_a_bit(concentration):
    values = log_probabilities(20_000, 17, concentration)
    q = np.exp2(to_grid(values).steps / 256)
    p = np.exp(values)
    lost = (p * (values - np.log(q / q.sum(1, keepdims=True)))).sum() / np.log(2) / len(values)
    assert 0 < lost < 4.5e-7


def test_largest_remainders_would_gain_nothing_that_counts():
    """The rule it replaces, in floating point, on the alphabet of grey pixels."""
    values = log_probabilities(500, 256, 0.05)
    exact = np.maximum(np.exp(values) * TOTAL, 1)
    exact = exact / exact.sum(1, keepdims=True) * (TOTAL - 256) + 1
    best = np.floor(exact)
    for row, rest in zip(best, exact - best, strict=True):
        row[np.argsort(-rest, kind="stable")[: round(TOTAL - row.sum())]] += 1
    assert loss(values, frequencies(to_grid(values).steps)) - loss(values, best) < 1e-5


def test_code_length_is_the_sum_of_the_logarithms():
    table = np.array([[TOTAL // 2, TOTAL // 4, TOTAL // 4]] * 3)
    assert code_length(np.array([0, 1, 2]), table) == 5
    assert code_length(np.array([0, 1, 2]), table[0]) == 5


# --- two symbols ------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=50))
def test_bernoulli_equals_the_general_rule(logits):
    logits = np.array(logits)
    table = bernoulli_frequencies(bernoulli_grid(logits).steps)
    finite = np.clip(logits, -1e4, 1e4)
    assert (table == frequencies(to_grid(np.stack([np.zeros_like(finite), finite], 1)).steps)).all()
    assert_table(table)


def test_bernoulli_reports_as_the_general_rule():
    logits = np.arange(-20, 20) * 0.25 * np.log(2) / 256
    general = to_grid(np.stack([np.zeros_like(logits), logits], 1)).near
    assert (bernoulli_grid(logits).near * 2 + 1 == general).all()
    assert general.size == 10


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        [[0.0, np.nan]],
        [[np.nan, np.nan]],
        [[0.0, np.inf]],
        [[-np.inf, -np.inf]],
        [[0.0, 0.0], [-np.inf, -np.inf]],
        [[1e200, 0.0]],
        [[-1e12, -1e12]],
    ],
)
def test_values_without_a_distribution_are_refused(values):
    with pytest.raises(InputError, match=f"row {len(values) - 1} "):
        to_grid(np.array(values))


def test_other_shapes_and_kinds_are_refused():
    for values in (np.zeros(3), np.zeros((2, 2), np.float32), np.zeros((2, 0))):
        with pytest.raises(InputError):
            to_grid(values)
    for steps in (np.zeros((1, 2)), np.zeros((1, MAX_SYMBOLS + 1), np.int64), np.zeros((1, 0), np.int64)):
        with pytest.raises(InputError):
            frequencies(steps)
    with pytest.raises(InputError, match="at 1 is NaN"):
        bernoulli_grid(np.array([0.0, np.nan]))
    with pytest.raises(InputError):
        bernoulli_grid(np.zeros((2, 2)))
