"""Who takes part, with how much time, and how many examples are measured."""

from __future__ import annotations

import json

import pytest

from unsup import Event, Support
from unsup.contest.plan import Entry, contestants, counted, in_words
from unsup.core.errors import InputError
from unsup.core.registry import create, model_class
from unsup.families.classical.histogram import Histogram

REAL, PIXELS, WORDS, BINARY = Support("real"), Support("ordinal", 256), Support("nominal", 4), Support("binary")
EVENTS = {
    "digits": Event((1, 8, 8), Support("ordinal", 17)),
    "mnist": Event((1, 28, 28), PIXELS),
    "colour": Event((3, 32, 32), PIXELS),
    "binary": Event((1, 28, 28), BINARY),
    "plane": Event((2,), REAL),
    "line": Event((1,), REAL),
    "table": Event((12,), (*[REAL] * 11, Support("ordinal", 6, 3))),
    "words": Event((32,), WORDS, "sequence"),
    "sound": Event((64,), REAL, "sequence"),
}


@pytest.mark.parametrize("name", EVENTS)
def test_every_event_has_contestants_that_take_it_one_or_two_a_family(name):
    entries, left_out = contestants(EVENTS[name], 1000)
    families = [e.family for e in entries]
    assert all(model_class(e.model).reason_against(EVENTS[name]) is None for e in entries)
    assert max(families.count(f) for f in families) <= 2
    assert not {e.model for e in entries} & set(left_out)
    assert [e.counts for e in entries] == sorted((e.counts for e in entries), reverse=True)


def test_digits_bring_six_families():
    entries, _ = contestants(EVENTS["digits"], 1257)
    assert len({e.family for e in entries}) == 6


def test_those_asked_for_take_part_though_they_may_be_slow():
    entries, left_out = contestants(EVENTS["mnist"], 50_000, ("vae", "made"))
    assert [e.model for e in entries] == ["vae", "made"]
    assert left_out == {}
    usual, left_out = contestants(EVENTS["mnist"], 50_000)
    assert "made" not in [e.model for e in usual]
    assert "200,704 outputs" in left_out["made"]


SMALL = {"hidden": (512,), "masks": 8, "order": "random", "direct": False, "dropout": 0.3}
REST = {"patience": 8, "validation_limit": 1000}


@pytest.mark.parametrize(
    ("name", "event", "examples", "options", "training"),
    [
        ("histogram", "digits", 1257, {}, {}),
        ("gaussian-mixture", "digits", 1257, {"covariance": "diagonal", "components": 80, "floor": 1e-2}, {}),
        ("gaussian-mixture", "table", 1257, {}, {}),
        ("made", "digits", 1257, SMALL, {"weight_decay": 0.1, "ema": 0.99, **REST}),
        ("made", "plane", 1257, {**SMALL, "hidden": (128,)}, {"weight_decay": 0.1, "ema": 0.99, **REST}),
        ("made", "digits", 50_000, {}, {"ema": 0.99, **REST}),
        ("pixelcnn", "digits", 1257, {}, {"ema": 0.99, **REST}),
        ("realnvp", "table", 1257, {"hidden": (64, 64)}, {"ema": 0.99, "weight_decay": 0.1, **REST}),
        ("realnvp", "digits", 1257, {}, {"ema": 0.99, **REST}),
        ("realnvp", "table", 50_000, {}, {"ema": 0.99, **REST}),
        ("vae", "digits", 1257, {"latent_dim": 16}, {"ema": 0.99, **REST}),
        ("vae", "plane", 1257, {"latent_dim": 2}, {"ema": 0.99, **REST}),
        ("vae", "mnist", 1257, {}, {"ema": 0.99, **REST}),
        ("gan", "digits", 1257, {}, REST),
        ("score-matching", "plane", 1257, {}, REST),
        ("rbm", "binary", 1257, {}, REST),
    ],
)
def test_models_take_part_as_they_advise(name, event, examples, options, training):
    ((entry,), _) = contestants(EVENTS[event], examples, (name,))
    assert entry.options == options
    assert entry.training == training
    again = Entry(**json.loads(json.dumps(vars(entry))))
    assert create(name, EVENTS[event], **again.options).config == create(name, EVENTS[event], **entry.options).config


def test_who_is_too_slow_or_not_made_for_the_data_is_left_out_with_the_reason():
    _, left_out = contestants(EVENTS["words"], 1000)
    assert "categories" in left_out["gan"]
    _, left_out = contestants(EVENTS["sound"], 1000)
    assert left_out["gan"] == left_out["score-matching"] == "supports vectors and images only"


def test_a_table_of_too_many_cells_is_left_out_unless_asked_for():
    sound = Event((1024,), Support("ordinal", 2**16), "sequence")
    entries, left_out = contestants(sound, 60)
    assert "histogram" not in [e.model for e in entries]
    assert "67,108,864 cells" in left_out["histogram"]
    assert Histogram.advice(EVENTS["colour"], 60).against is None


@pytest.mark.parametrize(("learners", "said"), [(1, "one model that learns by"), (2, "The 2 models that learn by")])
def test_the_plan_says_who_has_how_much(learners, said):
    entries, _ = contestants(EVENTS["plane"], 1000, ("histogram", *("made", "vae")[:learners]))
    plan = in_words(entries, 4, 1)
    assert said in plan
    assert "at most an equal share" in plan
    assert "as long as" not in plan
    assert "learn by gradients" not in in_words(entries[:1], 4, 1)


def test_bad_choices_are_refused_with_the_reason():
    with pytest.raises(
        InputError, match="pixelcnn takes images only; this data is vector of 2, real; remove pixelcnn from --models"
    ):
        contestants(EVENTS["plane"], 1000, ("made", "pixelcnn"))
    with pytest.raises(InputError, match="names vae 2 times"):
        contestants(EVENTS["plane"], 1000, ("vae", "vae"))
    with pytest.raises(InputError, match="did you mean 'realnvp'"):
        contestants(EVENTS["plane"], 1000, ("realnpv",))
    with pytest.raises(InputError, match="cyclegan learns from two domains"):
        contestants(EVENTS["colour"], 1000, ("cyclegan",))


@pytest.mark.parametrize(
    ("minutes", "available", "expected"), [(1, 10_000, 500), (20, 10_000, 2000), (500, 60_000, 10_000), (20, 360, 360)]
)
def test_more_minutes_measure_more_examples(minutes, available, expected):
    assert counted(minutes, available) == expected


def test_a_small_budget_has_one_learner_a_family_and_says_so():
    entries, left_out = contestants(EVENTS["digits"], 1257, minutes=0.5)
    learning = [e.family for e in entries if not e.counts]
    assert sorted(set(learning)) == sorted(learning)
    assert left_out["pixelcnn"] == "with it, each model would have less than 10 s; made represents its family"
    assert {e.model for e in entries if e.counts} == {"histogram", "gaussian-mixture"}
    assert "pixelcnn" in [e.model for e in contestants(EVENTS["digits"], 1257, minutes=4)[0]]
    asked, _ = contestants(EVENTS["digits"], 1257, ("made", "pixelcnn"), 0.5)
    assert [e.model for e in asked] == ["made", "pixelcnn"]


@pytest.mark.parametrize("examples", [3, 48, 5000])
@pytest.mark.parametrize("name", ["digits", "plane", "table"])
def test_a_mixture_never_has_more_components_than_a_few_examples_can_fill(name, examples):
    mixture = next(e for e in contestants(EVENTS[name], examples)[0] if e.model == "gaussian-mixture")
    chosen = mixture.options.get("components", "auto")
    assert chosen == "auto" or 1 <= chosen <= max(1, examples // 10)


def test_models_that_translate_without_a_second_domain_take_part_if_they_are_named():
    colour = Event((3, 8, 8), Support("ordinal", 256))
    entries, _ = contestants(colour, 1000, ("colorization",))
    assert [e.model for e in entries] == ["colorization"]
    with pytest.raises(InputError, match="learns from two domains"):
        contestants(colour, 1000, ("cyclegan",))
    assert "colorization" not in [e.model for e in contestants(colour, 1000)[0]]
