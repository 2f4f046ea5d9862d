"""Tables of any columns, mixtures and histograms are coded bit for bit, at the length of their likelihood."""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from environments import OTHERS
from hypothesis import given, settings
from hypothesis import strategies as st

import unsup
from unsup.coding import compress, decompress
from unsup.coding.autoregressive import EntryByEntry, choose_level, count_gaps, gap_frequencies
from unsup.coding.chunks import scheme_for
from unsup.coding.entropy import StreamError
from unsup.coding.errors import CodingError
from unsup.coding.reals import Bits, Line, Multiples
from unsup.coding.tables import TOTAL
from unsup.core.batch import Batch
from unsup.core.errors import CapabilityError, InputError
from unsup.core.event import REAL, Event, Support
from unsup.core.model import ChooseEntry, CodesEntries, CodesInOrders, CodesSplitEntries, Conditional, Model
from unsup.nn.intervals import cells
from unsup.train.trainer import fit

KINDS = (REAL, Support("nominal", 4), Support("binary"), Support("ordinal", 200, -7), REAL, Support("ordinal", 9))
N = 400


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def table(n: int = N, seed: int = 0) -> np.ndarray:
    g = rng(seed)
    k = g.integers(0, 4, n)
    a = np.round(g.normal(k * 3, 1 + k * 0.2), 2)
    b = g.random(n) < 0.2 + 0.2 * k
    c = np.clip(np.round(g.normal(40 * k, 10)), -7, 192)
    d = np.round(a * 10 + g.normal(0, 2, n), 1)
    e = np.clip(np.round(k * 2 + g.normal(0, 1, n)), 0, 8)
    return np.stack([a, k, b, c, d, e], 1) + 0.0  # no −0.0


def gappy(x: np.ndarray, share: float = 0.15) -> np.ndarray:
    return np.where(rng(1).random(x.shape) < share, np.nan, x)


def real(decimals: int | None) -> np.ndarray:
    g = rng(2)
    x = g.normal(size=(N, 3)) @ g.normal(size=(3, 3)) * 5 + 3
    return (x if decimals is None else np.round(x, decimals) + 0.0).astype(np.float32)


def levels(event: Event, n: int = N) -> np.ndarray:
    g = rng(3)
    hidden = g.random((n, 1))
    top = np.array([s.levels - 1 for s in event.columns])
    return np.round(top * np.clip(hidden + 0.3 * g.normal(size=(n, event.dims)), 0, 1)).astype(np.int64)


FIVES = Event((4,), Support("ordinal", 5))
DATA: dict[str, tuple[Event, np.ndarray]] = {
    "mixed": (Event((6,), KINDS, precision="float64"), table()),
    "gaps": (Event((6,), KINDS, precision="float64", missing=True), gappy(table())),
    "decimals": (Event((3,), REAL), real(3)),
    "floats": (Event((3,), REAL), real(None)),
    "real gaps": (Event((3,), REAL, missing=True), gappy(real(2)).astype(np.float32)),
    "fives": (FIVES, levels(FIVES)),
    "few gaps": (Event((3,), Support("ordinal", 5), missing=True), gappy(levels(FIVES)[:, :3].astype(np.float32))),
    "bits": (Event((20,), Support("binary")), levels(Event((20,), Support("binary")))),
}
CASES: list[tuple[str, dict[str, Any], str]] = [
    *(("histogram", {}, key) for key in DATA),
    *(("histogram", {"joint": "never"}, key) for key in ("gaps", "few gaps")),
    ("histogram", {"smoothing": 0.0}, "fives"),
    *(
        ("gaussian-mixture", {"components": 4, "covariance": "full"}, key)
        for key in DATA
        if key not in ("fives", "bits", "few gaps")
    ),
    ("gaussian-mixture", {}, "mixed"),
    ("gaussian-mixture", {}, "gaps"),
    ("gaussian-mixture", {"components": 3, "covariance": "tied"}, "gaps"),
    ("gaussian-mixture", {"components": 3, "covariance": "diagonal"}, "gaps"),
    *(("made", {"hidden": (24,), "components": 3}, key) for key in DATA),
    *(("made", {"hidden": (24,), "masks": 3}, key) for key in ("gaps", "decimals", "fives")),
    ("bernoulli-mixture", {"components": 5}, "bits"),
]


def trained(name: str, options: dict[str, Any], event: Event, x: np.ndarray) -> Model:
    model = unsup.create(name, event, seed=0, **options)
    steps = {"steps": 30} if name == "made" else {}
    fit(model, unsup.from_arrays(x, event=event), progress="off", validate_every=0, **steps)
    return model.double().eval()


def tensor(event: Event, x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(x)).to(event.dtype)


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and one.numpy().tobytes() == other.numpy().tobytes()


def visited_log_prob(model: Model, x: torch.Tensor) -> torch.Tensor:
    """Σ log p of the entries by `visit`, with densities of real entries from a narrow interval."""
    assert isinstance(model, CodesEntries)
    flat, columns, total = x.flatten(1).double(), model.event.columns, torch.zeros(len(x), dtype=torch.float64)

    def choose(entry: int, conditional: Conditional) -> torch.Tensor:
        nonlocal total
        support, own = columns[entry], flat[:, entry]
        value = own - support.low if support.is_discrete else own
        gone, there = value.isnan(), value.nan_to_num(0.0)
        if isinstance(conditional, torch.Tensor):
            log_p = conditional.gather(1, there.long()[:, None]).squeeze(1)
        elif support.is_discrete:
            log_p = conditional.log_masses(cells(there, support.levels)).squeeze(1)
        else:
            edges = torch.stack([there - 1e-6, there + 1e-6], 1)
            log_p = conditional.log_masses(edges).squeeze(1) - edges.diff(dim=1).squeeze(1).log()
        total = total + log_p.masked_fill(gone, 0.0)
        return value

    gaps = flat.isnan()
    model.visit(len(x), choose, gaps=gaps if bool(gaps.any()) else None)
    return total


@pytest.mark.parametrize(("name", "options", "key"), CASES)
def test_tables_come_back_at_the_length_of_their_likelihood(name: str, options: dict[str, Any], key: str) -> None:
    event, values = DATA[key]
    x = tensor(event, values)
    model = trained(name, options, event, values)
    with torch.no_grad():
        log_p = model.log_prob(x)
        visited = visited_log_prob(model, x)
    near_edge = name == "histogram" and not event.is_discrete  # the narrow interval may reach into the next bin
    assert torch.allclose(visited, log_p, atol=1e-5) or (near_edge and bool(((visited - log_p).abs() < 2).all()))

    scheme = scheme_for(model)
    assert scheme.takes(x).all()
    coded = scheme.encode(x)
    assert same_bits(scheme.decode(coded, len(x)), x)
    ideal, gaps = -float(log_p.sum()) / math.log(2), x.flatten(1).isnan().numpy()
    header = 32 + 32 + 64
    if event.missing:
        header += 32 * event.dims
        for gap, frequencies in zip(gaps.T, gap_frequencies(count_gaps(gaps), gaps), strict=True):
            ideal -= float(np.log2(np.where(gap, frequencies[:, 1], frequencies[:, 0]) / TOTAL).sum())
    for column, support in zip(x.flatten(1).numpy().T, event.columns, strict=True):
        if not support.is_discrete:
            own = np.ascontiguousarray(column[~np.isnan(column)])
            line = Line.of(own)
            header += 8 * len(line.to_bytes())
            ideal -= float(np.log2(line.edges(line.offsets(own) + np.uint64(1)) - line.edges(line.offsets(own))).sum())
    tolerance = 0.003 if near_edge else 0.001  # a cell may lie in two bins
    assert abs(8 * len(coded) - ideal) <= tolerance * ideal + header + 100


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["made", "gaussian-mixture", "histogram"])
@pytest.mark.parametrize("missing", [False, True])
def test_every_bit_of_every_float_comes_back(name: str, dtype: torch.dtype, missing: bool) -> None:
    event = Event((3,), (REAL, Support("ordinal", 5, -2), REAL), missing=missing)
    data = np.stack([rng().normal(size=50), rng(1).integers(-2, 3, 50), rng(2).normal(size=50) * 1e3], 1)
    model = trained(name, {"hidden": (8,), "components": 2} if name == "made" else {}, event, data)
    code = torch.int32 if dtype == torch.float32 else torch.int64
    width = 32 if dtype == torch.float32 else 64
    special = [
        0.0,
        -0.0,
        math.inf,
        -math.inf,
        math.nan,
        5e-324,
        -1e-45,
        3.4028235e38,
        1.7976931348623157e308,
        0.1,
        -1.0,
    ]
    numbers = st.one_of(
        st.sampled_from(special),
        st.floats(width=width),
        st.integers(-9999, 9999).map(lambda k: k / 100),
        st.integers(-(2 ** (width - 1)), 2 ** (width - 1) - 1).map(
            lambda k: float(torch.tensor(k, dtype=code).view(dtype))
        ),
    )

    @settings(max_examples=40, deadline=None)
    @given(
        st.lists(st.tuples(numbers, st.integers(-2, 2), numbers), min_size=1, max_size=30),
        st.integers(0, 2**20),
        st.booleans(),
    )
    def check(rows: list[tuple[float, int, float]], payload: int, damaged: bool) -> None:
        x = torch.tensor(rows, dtype=torch.float64).to(dtype)
        if damaged:  # a NaN with a payload
            quiet = torch.tensor([math.nan], dtype=dtype).view(code)
            x[0, 2:] = (quiet ^ payload).view(dtype)
        assert same_bits(decompress(model, compress(model, x)), x)

    check()


def test_a_column_has_the_coarsest_step_that_represents_it() -> None:
    for values, scale, step, count in (
        ([0.1, 0.25, -3.0], Multiples(1, 100), 5, 66),
        ([12000.0, -5000.0, 13000.0], Multiples(1000, 1), 1, 19),
        ([1e-9, 4e-9, 10e-9], Multiples(1, 10**9), 3, 4),
        ([7.0, 12.0, 13.0], Multiples(1, 1), 1, 7),
        ([16000 + 1 / 288, 16001.0, 16000.0], Multiples(1, 86_400), 300, 289),
        ([0.1, 0.1, 0.1], Multiples(1, 10), 1, 1),
    ):
        own = np.array(values)
        line = Line.of(own)
        assert (line.scale, line.step, line.count) == (scale, step, count)
        assert line.values(line.offsets(own), own.dtype).tobytes() == own.tobytes()
    short = np.array([0.1, 0.25, -3.0], np.float32)
    assert Line.of(short).scale == Multiples(1, 100)
    assert Line.of(short.astype(np.float64) * math.pi).scale == Bits(np.dtype(np.float64))
    narrow = (short * np.float32(math.pi)).astype(np.float64)
    assert Line.of(narrow).scale == Bits(np.dtype(np.float32))  # float32 numbers in a float64 array
    assert Line.of(np.array([0.5, -0.0])).scale == Bits(np.dtype(np.float32))


def test_a_few_other_numbers_do_not_cost_a_column() -> None:
    event, values = DATA["decimals"]
    model = trained("gaussian-mixture", {"components": 2}, event, values)
    x = tensor(event, values)
    alone = len(compress(model, x))
    x[3, 0], x[7, 1], x[11, 2] = math.pi, -0.0, math.nan
    data = compress(model, x)
    assert same_bits(decompress(model, data), x)
    assert len(data) < alone + 120


def test_real_entries_keep_a_precision_above_that_of_the_model() -> None:
    event = Event((3,), REAL)
    model = trained("made", {"hidden": (8,), "components": 2}, event, real(2))
    x = torch.from_numpy(np.round(real(2).astype(np.float64), 2) + 0.0)  # none of them is a float32
    data = compress(model, x)
    assert same_bits(decompress(model, data), x)
    assert len(data) < len(compress(model, torch.from_numpy(real(2)))) + 20
    whole = torch.tensor([[1, 2**24 + 1, -7]] * 50)
    assert torch.equal(decompress(model, compress(model, whole)), whole)


@pytest.mark.parametrize(
    ("name", "event"),
    [
        ("made", Event((2,), (Support("ordinal", 300_000, 5), REAL))),
        ("made", Event((1,), Support("nominal", 70_000))),
        ("histogram", Event((2,), Support("ordinal", 70_000, -3))),
        ("histogram", Event((2,), (Support("ordinal", 2**17), REAL), missing=True)),
        ("gaussian-mixture", Event((2,), (Support("ordinal", 2**16), Support("nominal", 300)))),
    ],
)
def test_columns_of_very_many_levels(name: str, event: Event) -> None:
    values = np.stack([rng(d).integers(s.low, s.low + max(s.levels, 9), 30) for d, s in enumerate(event.columns)], 1)
    values[0] = [s.low for s in event.columns]
    values[1] = [s.low + max(s.levels, 9) - 1 for s in event.columns]
    options: dict[str, dict[str, Any]] = {
        "made": {"hidden": (4,), "components": 2, "direct": False},
        "gaussian-mixture": {"components": 2},
    }
    model = unsup.create(name, event, seed=0, **options.get(name, {})).double()
    x = tensor(event, values)
    if event.missing:
        x[2, 0] = x[4, 1] = math.nan
    scheme = scheme_for(model)
    coded = scheme.encode(x)
    assert same_bits(scheme.decode(coded, len(x)), x)
    if event.is_discrete:
        with torch.no_grad():
            ideal = -float(model.log_prob(x).sum()) / math.log(2)
        assert 8 * len(coded) <= 1.02 * ideal + 150


def test_dequantised_levels_have_the_masses_of_their_cells() -> None:
    event = Event((1, 4, 4), Support("ordinal", 17), "image")
    x = tensor(event, levels(event, 200).reshape(-1, 1, 4, 4))
    model = trained("gaussian-mixture", {"components": 3, "covariance": "diagonal", "floor": 1e-2}, event, x.numpy())
    scheme = scheme_for(model)
    coded = scheme.encode(x)
    assert same_bits(scheme.decode(coded, len(x)), x)
    with torch.no_grad():
        bound = -float(model.log_prob(x, samples=50).sum()) / math.log(2)
        exact = -float(visited_log_prob(model, x).sum()) / math.log(2)
    assert abs(8 * len(coded) - exact) <= 0.001 * exact + 160
    assert exact < bound
    full = trained("gaussian-mixture", {"components": 1, "covariance": "full"}, event, x.numpy())
    with pytest.raises(CapabilityError, match="full covariances, under which no level has a known probability"):
        compress(full, x)


def test_masses_of_a_dequantised_model_sum_to_one() -> None:
    event = Event((2,), Support("ordinal", 3), "vector")
    grid = torch.cartesian_prod(torch.arange(3), torch.arange(3)).to(event.dtype)
    image = Event((1, 1, 2), Support("ordinal", 3), "image")
    model = trained(
        "gaussian-mixture", {"components": 2, "covariance": "diagonal"}, image, grid.view(-1, 1, 1, 2).numpy()
    )
    assert float(visited_log_prob(model, grid.view(-1, 1, 1, 2)).exp().sum()) == pytest.approx(1.0, abs=1e-9)


def mixture(name: str, event: Event, orders: int, noise: float) -> CodesInOrders:
    """A mixture over random orders, with weights from N(0, noise²)."""
    options: dict[str, dict[str, Any]] = {
        "made": {"hidden": (24,), "masks": orders},
        "nade": {"hidden": 24, "orderless": True, "ensemble": orders},
    }
    model = unsup.create(name, event, seed=0, order="random", **options[name]).double().eval()
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(noise * torch.randn(p.shape, generator=g))
    assert isinstance(model, CodesInOrders)
    return model


TWELVE = Event((12,), Support("binary"))


@pytest.mark.parametrize("name", ["made", "nade"])
def test_orders_far_apart_take_the_bits_of_the_best_one_and_its_number(name: str) -> None:
    model, n = mixture(name, TWELVE, 4, 1.0), 1000
    x = model.sample(n, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        each = model.log_prob_each_order(Batch(x)) / math.log(2)
        ideal = -float(model.log_prob(x).sum()) / math.log(2)
    scheme = scheme_for(model)
    coded = scheme.encode(x)
    assert same_bits(scheme.decode(coded, n), x)
    best = 2 * n - float(each.max(1).values.sum())
    assert abs(8 * len(coded) - best) <= 0.001 * best + 160
    assert ideal - 160 <= 8 * len(coded) <= ideal + 2 * n + 160
    assert 8 * len(coded) < 0.7 * 8 * len(EntryByEntry(model).encode(x))


def test_orders_that_are_alike_are_not_named_for_each_example() -> None:
    model, n = mixture("made", TWELVE, 4, 0.01), 500
    x = model.sample(n, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        each = -model.log_prob_each_order(Batch(x)).sum(0) / math.log(2)
    scheme = scheme_for(model)
    coded = scheme.encode(x)
    assert same_bits(scheme.decode(coded, n), x)
    assert abs(8 * len(coded) - float(each.min())) <= 0.001 * float(each.min()) + 160


def test_masks_of_one_order_are_coded_as_their_mixture() -> None:
    model = unsup.create("made", TWELVE, hidden=(24,), masks=3, seed=0).double().eval()
    assert isinstance(model, CodesInOrders)
    assert type(scheme_for(model)) is EntryByEntry
    x = model.sample(20, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert torch.equal(model.log_prob_each_order(Batch(x)), model.log_prob(x)[:, None])


def test_groups_of_examples_do_not_change_what_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each order has groups of its own, of which the last one is smaller; examples of an order may be few or none."""
    model = mixture("nade", TWELVE, 5, 1.0)
    x = model.sample(60, generator=torch.Generator().manual_seed(2))
    whole = scheme_for(model).encode(x)
    monkeypatch.setattr("unsup.coding.autoregressive._MOST", 7)
    scheme = scheme_for(model)
    coded = scheme.encode(x)
    assert coded[:4] != whole[:4]
    assert same_bits(scheme.decode(coded, 60), x)
    scheme.spare = 3
    assert scheme.encode(x) == coded
    assert same_bits(scheme.decode(coded, 60), x)
    for n in (1, 2, 8):
        assert same_bits(scheme.decode(scheme.encode(x[:n]), n), x[:n])


def test_a_canary_sees_every_order(monkeypatch: pytest.MonkeyPatch) -> None:
    scheme = scheme_for(mixture("made", TWELVE, 3, 1.0))
    whole, visit = scheme.canary(), cast(CodesInOrders, scheme.model).visit
    for other in range(3):

        def changed(n: int, choose: ChooseEntry, *, order: int, off: int = other, **options: Any) -> None:
            def choose_other(entry: int, conditional: Conditional) -> torch.Tensor:
                assert isinstance(conditional, torch.Tensor)
                return choose(entry, conditional + 0.1 * (order == off))

            visit(n, choose_other, order=order, **options)

        monkeypatch.setattr(scheme.model, "visit", changed)
        assert scheme.canary() != whole


@pytest.mark.parametrize("levels", [6, 256, 2**12])
def test_depths_of_pixels_take_the_bits_of_the_likelihood(levels: int) -> None:
    event = Event((2, 2, 2), Support("ordinal", levels, -3))
    model = unsup.create("subscale-depth", event, preset="tiny", depth=1, seed=0).double().eval()
    assert isinstance(model, CodesSplitEntries)
    x = model.sample(50, generator=torch.Generator().manual_seed(0))
    assert same_bits(model.join_entries(model.split_entries(x)), x)
    assert bool(model.split_event.contains(model.split_entries(x)).all())
    with torch.no_grad():
        ideal = -float(model.log_prob(x).sum()) / math.log(2)
    scheme = scheme_for(model)
    coded = scheme.encode(x)
    assert same_bits(scheme.decode(coded, len(x)), x)
    assert abs(8 * len(coded) - ideal) <= 0.001 * ideal + 160
    x[3, 1, 0, 1] = levels  # beyond the event: kept beside the others
    assert same_bits(decompress(model, compress(model, x)), x)


def test_levels_beyond_the_last_are_damage() -> None:
    masses = np.zeros((1, 70_000))
    with pytest.raises(StreamError, match="a level beyond the last"):
        choose_level(masses, lambda start, shift, log_masses: np.array([log_masses.shape[1] - 1]))


def test_damage_never_does_more_than_raise_an_error() -> None:
    event, values = DATA["gaps"]
    model = trained("gaussian-mixture", {"components": 2}, event, values)
    x = tensor(event, values)[:40]
    scheme = EntryByEntry(model)
    coded = scheme.encode(x)
    g = rng(5)
    for _ in range(150):
        damaged = bytearray(coded)
        for _ in range(int(g.integers(1, 4))):
            damaged[g.integers(min(len(coded), int(g.choice([40, len(coded)]))))] = g.integers(256)
        cut = bytes(damaged)[: int(g.integers(len(coded) + 1))] if g.random() < 0.3 else bytes(damaged)
        with contextlib.suppress(CodingError, InputError):
            assert scheme.decode(cut, len(x)).shape == x.shape


DECODE = """
import sys, torch
from pathlib import Path
from unsup.coding import decompress
from unsup.train.runs import load_model
folder = Path(sys.argv[1])
torch.set_num_threads(int(sys.argv[2]))
for own in sorted(folder.glob("*.unsup")):
    x = decompress(load_model(own.with_suffix("")), own.read_bytes())
    assert x.numpy().tobytes() == torch.load(own.with_suffix(".pt"), weights_only=True).numpy().tobytes(), own
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    kept = {("histogram", "gaps"), ("gaussian-mixture", "gaps"), ("made", "gaps"), ("made", "floats")}
    for number, (name, options, key) in enumerate(CASES):
        if (name, key) in kept or name == "bernoulli-mixture":
            event, values = DATA[key]
            model, x = trained(name, options, event, values), tensor(event, values)
            model.save(str(folder / str(number)))
            (folder / f"{number}.unsup").write_bytes(compress(model, x))
            torch.save(x, folder / f"{number}.pt")
    return folder


@OTHERS
def test_files_are_decoded_with_other_instructions_and_threads(
    threads: int, settings: dict[str, str], files: Path
) -> None:
    words = [sys.executable, "-c", DECODE, str(files), str(threads)]
    subprocess.run(words, env=os.environ | settings, check=True, timeout=300)
