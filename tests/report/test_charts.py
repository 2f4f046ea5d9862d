"""Charts against the numbers they were drawn from, read back from their SVG."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unsup.report.charts import (
    Bar,
    Panel,
    bars,
    calibration_curve,
    likelihood_dots,
    scatter,
    thinned,
    training_curves,
)
from unsup.report.svg import fitted, log_ticks, number, tick_text, ticks

ROWS = [
    Bar("a", 1.0, "= 1.0", (0.9, 1.1), "exact"),
    Bar("b & <c>", 1.5, "≤ 1.5", (1.45, 1.55), "bound"),
    Bar("d", 2.0, "≈ 2.0", (1.8, 2.2), "estimate"),
]


def parse(svg: str) -> ElementTree.Element:
    """The drawing; that it parses says that everything is escaped and closed."""
    return ElementTree.fromstring(svg)


def with_class(root: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [e for e in root.iter() if name in e.get("class", "").split()]


def middle(mark: ElementTree.Element) -> float:
    """Where a mark stands horizontally: a disc's centre; of a diamond or triangle the mean of its extremes."""
    if mark.tag == "circle":
        return float(mark.get("cx", "nan"))
    xs = [float(p.split(",")[0]) for p in mark.get("points", "").split()]
    return (min(xs) + max(xs)) / 2


def tick_positions(root: ElementTree.Element) -> dict[float, float]:
    """Value → horizontal place of the ticks below."""
    return {
        float(t.text.replace("−", "-").replace(",", "")): float(t.get("x", "nan"))
        for t in with_class(root, "tick")
        if t.text and t.get("text-anchor") == "middle"
    }


def read_off(root: ElementTree.Element, x: float) -> float:
    """The value at a horizontal place, by the two outer ticks."""
    found = sorted(tick_positions(root).items())
    (low, start), (high, end) = found[0], found[-1]
    return low + (x - start) / (end - start) * (high - low)


def test_dots_stand_where_the_axis_says() -> None:
    root = parse(likelihood_dots(ROWS, "t"))
    found = [read_off(root, middle(m)) for m in with_class(root, "mark")]
    assert found[0] == pytest.approx(1.0, abs=0.01)
    assert found[2] == pytest.approx(2.0, abs=0.01)
    assert [with_class(root, k)[0].tag for k in ("exact", "bound", "estimate")] == ["circle", "polygon", "polygon"]


def test_whiskers_span_the_intervals() -> None:
    root = parse(likelihood_dots(ROWS, "t"))
    first = with_class(root, "whisker")[0].get("d", "")
    a, b = float(first.split("M")[1].split()[0]), float(first.split("H")[1].split("M")[0])
    assert (read_off(root, a), read_off(root, b)) == pytest.approx((0.9, 1.1), abs=0.01)


def test_only_a_bound_is_open_towards_lower_values() -> None:
    root = parse(likelihood_dots(ROWS, "t"))
    (arrow,) = with_class(root, "open-end")
    start, end = float(arrow.get("d", "").split()[0][1:]), float(arrow.get("d", "").split("H")[1].split("M")[0])
    assert start == pytest.approx(middle(with_class(root, "bound")[0]), abs=2)
    assert end < start - 20


def test_one_far_away_does_not_squeeze_the_others() -> None:
    rows = [Bar(f"m{i}", 1 + i / 10, "", kind="exact") for i in range(4)] + [Bar("far", 90.0, "= 90", kind="exact")]
    root = parse(likelihood_dots(rows, "t"))
    marks = [middle(m) for m in with_class(root, "mark")]
    assert len(marks) == 4
    assert max(marks) - min(marks) > 200
    assert "off the scale" in "".join(root.itertext())


def test_bars_are_as_long_as_their_values() -> None:
    rows = [Bar("real", 40.0, "40"), Bar("worked out", 10.0, "10", kind="implied")]
    root = parse(bars(rows, "t", "Bytes"))
    long, short = (float(b.get("width", "nan")) for b in with_class(root, "bar"))
    assert long / short == pytest.approx(4, rel=0.01)
    assert [("implied" in b.get("class", "")) for b in with_class(root, "bar")] == [False, True]
    (pattern,) = root.iter("pattern")
    assert f"url(#{pattern.get('id')})" in with_class(root, "implied")[0].get("style", "")


def test_bars_grow_from_zero_to_both_sides() -> None:
    root = parse(bars([Bar("good", 0.9, ""), Bar("bad", -0.3, "")], "t", "Gain"))
    good, bad = with_class(root, "bar")
    base = float(with_class(root, "base")[0].get("x1", "nan"))
    assert float(good.get("x", "nan")) == pytest.approx(base, abs=0.11)
    assert float(bad.get("x", "nan")) + float(bad.get("width", "nan")) == pytest.approx(base, abs=0.11)


def test_references_stand_at_their_values() -> None:
    root = parse(bars([Bar("m", 0.9, "")], "t", "Accuracy", lines=[0.7]))
    (line,) = with_class(root, "reference")
    assert read_off(root, float(line.get("x1", "nan"))) == pytest.approx(0.7, abs=0.005)


def test_scatter_uses_ratios_where_times_span_decades() -> None:
    points = [Bar("quick", 3.0, x=0.1), Bar("slow", 2.0, x=10.0), Bar("middle", 2.5, x=1.0)]
    root = parse(scatter(points, "t", "Quality", "minutes", "bits"))
    quick, slow, half = (middle(m) for m in with_class(root, "mark"))
    assert half == pytest.approx((quick + slow) / 2, abs=0.2)
    assert "logarithmic" in "".join(root.itertext())


def test_a_point_far_above_is_said_to_be_there() -> None:
    points = [Bar(f"m{i}", 1 + i / 10, kind="exact", x=1.0 + i) for i in range(4)]
    points.append(Bar("far", 90.0, kind="exact", x=3.0))
    root = parse(scatter(points, "t", "Quality", "minutes", "FID"))
    assert "far ↑ 90" in [t.text for t in with_class(root, "label")]
    heights = [float(m.get("cy", "nan")) for m in with_class(root, "mark")]
    assert heights[-1] < min(heights[:-1])


def test_labels_of_near_points_do_not_overlap() -> None:
    points = [Bar(f"model-{i}", 2 + i * 0.002, x=1 + i * 0.02) for i in range(4)] + [Bar("far", 3.0, x=3.0)]
    root = parse(scatter(points, "t", "Quality", "minutes", "bits"))
    boxes = []
    for t in with_class(root, "label"):
        width, x, y = 6.5 * len(t.text or ""), float(t.get("x", "nan")), float(t.get("y", "nan"))
        left = x - width * {"start": 0.0, "middle": 0.5, "end": 1.0}[t.get("text-anchor", "start")]
        boxes.append((left, left + width, y - 10, y + 2))
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            assert min(a[1], b[1]) <= max(a[0], b[0]) or min(a[3], b[3]) <= max(a[2], b[2])


def test_a_diverging_start_does_not_flatten_a_curve() -> None:
    loss = [(float(i), 1e6 if i < 5 else 100 - i / 10) for i in range(200)]
    root = parse(training_curves([Panel("loss", [("loss", loss)])], "t", "Training"))
    (curve,) = with_class(root, "curve")
    ys = [float(p.split(",")[1]) for p in curve.get("points", "").split()]
    assert ys[-1] - ys[20] > 50
    assert ys[0] < 0
    assert [e.get("clip-path") for e in root.iter("g")] == ["url(#t-c0)"]


def test_a_curve_of_one_step_is_a_dot() -> None:
    lines = [("training loss", [(1.0, 5.0)]), ("validation", [(1.0, 4.0)])]
    root = parse(training_curves([Panel("nats per example", lines)], "t", "Training"))
    first, second = (float(with_class(root, f"s{i}")[0].get("cy", "nan")) for i in range(2))
    assert len(with_class(root, "dot")) == 2
    assert first < second


def test_curves_of_one_name_share_a_colour() -> None:
    pairs = [(0.0, 1.0), (1.0, 0.5)]
    panel = Panel("nats", [("loss", pairs), ("loss", pairs), ("validation", pairs)])
    curves = with_class(parse(training_curves([panel], "t", "Training")), "curve")
    assert [c.get("class") for c in curves] == ["curve s0", "curve s0", "curve s1"]


def test_calibration_curve_of_a_calibrated_model_is_the_diagonal() -> None:
    levels = [(i / 10, i / 10) for i in range(11)]
    root = parse(calibration_curve([levels], "t", "m", "0.0"))
    (diagonal,) = with_class(root, "diagonal")
    x1, y1, x2, y2 = (float(diagonal.get(k, "nan")) for k in ("x1", "y1", "x2", "y2"))
    for p in with_class(root, "curve")[0].get("points", "").split():
        x, y = map(float, p.split(","))
        assert y == pytest.approx(y1 + (x - x1) / (x2 - x1) * (y2 - y1), abs=0.2)


def test_a_drawing_says_what_it_shows() -> None:
    root = parse(likelihood_dots(ROWS, "t"))
    assert root.get("role") == "img"
    ids = {e.get("id"): e for e in root.iter() if e.get("id")}
    named = [ids[i] for i in root.get("aria-labelledby", "").split()]
    assert [e.tag for e in named] == ["title", "desc"]
    assert all(row.label in (named[1].text or "") for row in ROWS)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_few_round_and_inside(low: float, length: float) -> None:
    found = ticks(low, low + length)
    slack = 1e-6 * (abs(low) + length)
    assert 1 <= len(found) <= 5
    assert all(low - slack <= t <= low + length + slack for t in found)
    if len(found) > 1:
        step = found[1] - found[0]
        mantissa = step / 10 ** math.floor(math.log10(step) + 1e-9)
        assert any(mantissa == pytest.approx(m, rel=1e-3) for m in (1, 2, 2.5, 5, 10))


@given(st.floats(1e-4, 1e4), st.floats(2, 1e6))
def test_logarithmic_ticks_are_few_and_inside(low: float, ratio: float) -> None:
    found = log_ticks(low, low * ratio)
    assert len(found) <= 5
    assert all(low <= t <= low * ratio for t in found)


def test_a_scale_of_one_value_is_not_empty() -> None:
    scale = fitted([3.0], 0.0, 100.0)
    assert scale(3.0) == 50.0
    assert parse(scatter([Bar("only", 2.0, x=2.0)], "t", "Quality", "minutes", "bits")) is not None


def test_thinning_keeps_both_ends() -> None:
    pairs = [(float(i), float(i)) for i in range(1001)]
    found = thinned(pairs, 160)
    assert (found[0], found[-1], len(found)) == ((0.0, 0.0), (1000.0, 1000.0), 160)


def test_numbers_have_a_true_minus_and_never_a_negative_zero() -> None:
    assert (number(-3.14159), number(-0.00001), number(1234567.0)) == ("−3.14", "0.0000", "1,234,567")
    assert (tick_text(-0.5), tick_text(0.1 + 0.2)) == ("−0.5", "0.3")


def test_wide_intervals_of_likelihoods_end_where_they_end():
    """Ends beyond the worst value stay apart; only what is cut by the frame has no cap."""
    rows = [Bar("a", 1.0, "= 1.0", (0.5, 1.5)), Bar("b", 1.1, "= 1.1", (0.2, 2.0)), Bar("c", 1.2, "= 1.2", (0.2, 2.2))]
    whiskers = [e.get("d", "") for e in with_class(parse(likelihood_dots(rows, "x")), "whisker")]
    ends = [float(d.split("H")[1].split("M")[0]) for d in whiskers]
    assert ends == sorted(set(ends))
    assert all(d.count("V") == 2 for d in whiskers)
    far = [Bar("d", 1.3, "= 1.3", (1.2, 1.4)), Bar("e", 99.0, "= 99", (98.0, 100.0))]
    whiskers = [e.get("d", "") for e in with_class(parse(likelihood_dots([*rows, *far], "x")), "whisker")]
    assert sum(d.count("V") for d in whiskers) == 8


@pytest.mark.parametrize("values", [[-1.7e308, 1.7e308], [1.7e308], [-1.7e308, 0.0], [1e-320, 1.7e308]])
@pytest.mark.parametrize("decades", [False, True])
def test_scales_of_the_largest_numbers_are_finite(values: list[float], decades: bool) -> None:
    scale = fitted(values, 0.0, 100.0, decades=decades)
    assert all(math.isfinite(number) for number in (scale.low, scale.high, *scale.ticks, *map(scale, values)))
