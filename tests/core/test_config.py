"""Options: ranges in annotations, NumPy's numbers, events and parts, and their form in JSON."""

from __future__ import annotations

import json
from typing import Annotated, Any

import numpy as np
import pytest

from unsup.core.config import (
    Above,
    AtLeast,
    Count,
    Odd,
    Positive,
    Share,
    Weight,
    Widths,
    Within,
    bare,
    check_value,
    normalise_options,
    options_of,
    plain,
)
from unsup.core.errors import InputError
from unsup.core.event import BINARY, REAL, Event, Support, labels
from unsup.core.part import Part


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (1, Count),
        (1e-9, Positive),
        (0.0, Weight),
        (0.0, Share),
        (1, Share),
        (3, Annotated[int, Odd()]),
        ((), Widths),
        (None, Count | None),
        (0.49, Annotated[float, Within(0, 0.5, below=True)]),
    ],
)
def test_values_at_the_edge_of_their_range_are_taken(value, annotation):
    assert check_value("v", value, annotation) == value


@pytest.mark.parametrize(
    ("value", "annotation", "said"),
    [
        (0, Count, "v=0 should be at least 1"),
        (0.0, Positive, "v=0.0 should be above 0"),
        (-1e-9, Weight, "v=-1e-09 should be at least 0"),
        (1.01, Share, "v=1.01 should be from 0 to 1"),
        (4, Annotated[int, Odd()], "v=4 should be odd"),
        ((8, 0), Widths, "v=0 should be at least 1"),
        (0, Count | None, "v=0 should be at least 1"),
        (0.5, Annotated[float, Within(0, 0.5, below=True)], "v=0.5 should be from 0 to below 0.5"),
        (float("nan"), Positive, "v=nan should be above 0"),
        (float("nan"), Weight, "v=nan should be at least 0"),
    ],
)
def test_values_beyond_it_are_refused_with_the_range(value, annotation, said):
    with pytest.raises(InputError) as caught:
        check_value("v", value, annotation)
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        (np.int64(3), Count, 3),
        (np.float32(0.5), float, 0.5),
        (np.int32(2), float, 2.0),
        (np.bool_(True), bool, True),
        ([np.int64(4), 5], Widths, (4, 5)),
        (np.str_("em"), str, "em"),
    ],
)
def test_scalars_of_numpy_are_numbers(value, annotation, expected):
    found = check_value("v", value, annotation)
    assert found == expected
    assert type(found) is type(expected)


def test_annotations_have_a_bare_type_and_options_keep_their_ranges():
    def f(event: Event, *, width: Count = 3, scale: Positive | None = None) -> None: ...

    assert options_of(f) == {
        "width": (Annotated[int, AtLeast(1)], 3),
        "scale": (Annotated[float, Above(0)] | None, None),
    }
    assert bare(Positive | None) is float
    assert bare(Widths) == Widths


@pytest.mark.parametrize(
    "event",
    [
        Event((4,), BINARY),
        labels(10),
        Event((3, 8, 8), Support("ordinal", 256)),
        Event((2,), REAL, precision="float64"),
        Event((9,), Support("nominal", 4), layout="sequence", open=True),
        Event((2,), (REAL, BINARY)),
    ],
)
def test_events_are_options_that_survive_json(event):
    assert check_value("given", json.loads(json.dumps(plain(event))), Event | None) == event


def test_parts_are_options_that_survive_json():
    def f(event: Event, *, prior: Part | None = None) -> None: ...

    for given in ("made", {"name": "made", "options": {"hidden": (8, 8)}}, Part("made", {"hidden": (8,)}, frozen=True)):
        config = normalise_options("F", f, {"prior": given})
        again = normalise_options("F", f, json.loads(json.dumps(plain(config))))
        assert plain(again) == plain(config)
        assert again["prior"].name == "made"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("mede", "did you mean 'made'"),
        ({"options": {}}, "is not a part"),
        ({"name": "made", "size": 3}, "is not a part"),
    ],
)
def test_what_names_no_part_is_refused(given: Any, said: str):
    with pytest.raises(InputError, match=said):
        check_value("prior", given, Part)


def test_damaged_events_are_refused_in_words():
    for record in ({}, {"shape": [2]}, 3, {"shape": 1, "support": [["real", 0, 0]], "layout": None}):
        with pytest.raises(InputError, match="is not an event"):
            Event.from_json(record)
