"""Words of a command line may stand in any order that leaves their meaning."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unsup.cli.fit import _name, _parser, _parser_for
from unsup.cli.options import Parser
from unsup.core.errors import InputError

GROUPS = (
    ("--seed", "-3"),
    ("--lr", "1e-3"),
    ("--model.hidden", "64", "32"),
    ("--betas", "0.5", "0.9"),
    ("--steps=5",),
    ("-oRUN",),
    ("--no-model.direct",),
    ("--preset", "tiny"),
    ("--model.order", "natural"),
    ("--plain",),
)


def parsed(words: list[str]) -> dict[str, object]:
    name = _name(words, _parser(()).split(words))
    return vars(_parser_for(name, words)[0].parse(words))


@settings(max_examples=60, deadline=None)
@given(st.permutations(GROUPS), st.lists(st.integers(0, len(GROUPS)), min_size=2, max_size=2))
def test_every_order_of_options_and_positionals_is_the_same(groups, places):
    first, second = sorted(places)
    cut = [*groups[:first], ("digits",), *groups[first:second], ("made",), *groups[second:]]
    words = list(itertools.chain(*cut))
    expected = parsed(["digits", "made", *itertools.chain(*GROUPS)])
    assert parsed(words) == expected
    assert expected["model.hidden"] == (64, 32)
    assert (expected["data"], expected["model"], expected["seed"]) == ("digits", "made", -3)


@pytest.mark.parametrize(
    "line",
    [
        "--drop a b digits made -o RUN",
        "digits --drop a b made -o RUN",
        "--drop a b --model.hidden 64 digits made -o RUN",
        "--drop a b -o RUN digits made",
        "digits made --drop a b -o RUN",
        "-o RUN --drop a b -- digits made",
    ],
)
def test_a_list_of_words_gives_back_the_positionals(line):
    found = parsed(line.split())
    assert (found["data"], found["model"], found["drop"]) == ("digits", "made", ("a", "b"))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--model.hidden 64 64 digits maded", "'made'"),
        ("digits maded --model.hidden 64 64", "'made'"),
        ("--model.hiden 64 64 digits made", "'--model.hidden'"),
        ("--epoch 3 digits made", "'--epochs'"),
        ("digits made --epoch 3", "'--epochs'"),
        ("--model.hidden 64 64", "DATA and MODEL are missing"),
        ("digits --model.hidden 64", "MODEL is missing"),
        ("digits made more", "unexpected argument 'more'"),
        ("digits made --betas 0.5", "--betas"),
        ("digits made --model.layers 3", "'--model.layers'"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(line, said):
    with pytest.raises(InputError) as raised:
        parsed(line.split())
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_words_after_two_dashes_are_positionals():
    parser = Parser(prog="x")
    parser.add_argument("file")
    parser.add_argument("-n", type=float)
    assert parser.parse(["-n", "3", "--", "-odd.csv"]).file == "-odd.csv"
    assert parser.parse(["-n", "-3e-2", "some.csv"]).n == -0.03
    assert parser.parse(["some.csv", "-n-3"]).n == -3


def test_one_flag_that_looks_like_two_positionals_needs_its_value():
    parser = Parser(prog="x")
    parser.add_argument("file", nargs="?")
    parser.add_argument("-o", "--out", required=True)
    with pytest.raises(InputError, match="expected one argument"):
        parser.parse(["file", "-o"])
    with pytest.raises(InputError, match="-o"):
        parser.parse(["file"])
