"""The options of every model on the command line, and in the commands of the documentation."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest

from unsup.cli.fit import _parser_for
from unsup.cli.model_options import MODEL, ModelOptions
from unsup.cli.options import Parser, argument_texts, chosen, flag_of
from unsup.core.config import bare, options_of
from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.core.part import Part
from unsup.core.registry import model_class, names
from unsup.train.settings import Settings, make_settings

ROOT = Path(__file__).parents[2]
PAGES = {path.name: path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
COMMANDS = [
    (page, line.strip())
    for page, text in PAGES.items()
    for block in re.findall(r"```sh\n(.*?)```", text, re.S)
    for line in block.splitlines()
    if line.strip().startswith("unsup fit") and "--model." in line
]
FITS = [
    (page, code)
    for page, text in PAGES.items()
    for code in dict.fromkeys(re.findall(r"`(unsup fit [^`\n]* -o [^`\n]*)`", text))
    if "--resume" not in code
]
"""Whole commands within sentences."""
MENTIONS = [
    (page, code[code.index("--model.") :])
    for page, text in PAGES.items()
    for code in dict.fromkeys(re.findall(r"`([^`\n]*--model\.[^`\n]*)`", text))
]


def parsed(name: str, words: list[str]) -> dict[str, Any]:
    """The options of a model in the words of a command line."""
    parser = Parser(prog="unsup fit")
    options = ModelOptions(parser, name, words)
    return options.given(parser.parse(words))


def words_of(annotation: Any) -> list[Any]:
    """Every word that an option takes."""
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [word for inner in get_args(annotation) for word in words_of(inner)]


def spelled(name: str, value: Any) -> list[str]:
    """The flag of an option with a value."""
    if isinstance(value, bool):
        return [flag_of(MODEL + name) if value else f"--no-{flag_of(MODEL + name)[2:]}"]
    return [flag_of(MODEL + name), *map(str, value if isinstance(value, tuple) else (value,))]


@pytest.mark.parametrize("name", names())
def test_defaults_and_words_of_options_can_be_given(name):
    options = options_of(vars(model_class(name))["__init__"])
    for option, (annotation, default) in options.items():
        if bare(annotation) in (Part, Event):
            continue
        many = get_origin(bare(annotation)) is tuple
        for value in [default, *words_of(annotation)]:
            if value is None:  # not given
                continue
            found = parsed(name, spelled(option, value))[option]
            expected = (value,) if many and not isinstance(value, tuple) else value
            assert (found, type(found)) == (expected, type(expected)), option


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (("kde", "--model.bandwidth", "wide"), "neither a number nor 'auto' nor 'scott' nor 'silverman'"),
        (("kde", "--model.bandwidth", "-1"), "should be above 0"),
        (("gaussian-mixture", "--model.components", "2.5"), "neither a number nor 'auto'"),
        (("gaussian-mixture", "--model.components", "-3"), "should be at least 1"),
        (("gaussian-mixture", "--model.covariance", "round"), "invalid choice: 'round'"),
    ],
)
def test_other_words_are_refused(given, problem):
    name, *words = given
    with pytest.raises(InputError, match=problem):
        parsed(name, words)


@pytest.mark.parametrize("name", names())
def test_help_texts_stand_alone(name):
    """Each option has a text of its own, which refers to no other place of the docstring."""
    options = options_of(vars(model_class(name))["__init__"])
    texts = argument_texts(model_class(name).__doc__ or "")
    for option in options:
        text = texts.get(option, "")
        assert text, option
        assert not re.search(r"\b(see|table|list|options?)\b[^.;]*\babove\b|\bthe same( defaults)?$", text), option
        assert not [other for other in options if f" {other}: " in text], option  # a text of another option in it


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_documented_commands_have_options_of_their_model(page, line):
    words = shlex.split(line, comments=True)
    name = next(word for word in words[3:] if word in names())
    groups: list[list[str]] = []
    for word in words:
        if word.startswith("-"):
            groups.append([word])
        elif groups:
            groups[-1].append(word)
    own = [g for g in groups if g[0].startswith(("--model.", "--no-model."))]
    given = [name if word.startswith("runs/") else word for group in own for word in group]  # there are no runs here
    assert parsed(name, given)


@pytest.mark.parametrize(("page", "code"), FITS)
def test_commands_within_sentences_are_parsed(page, code):
    words = shlex.split(code)[2:]
    name = words[1]
    parser, model_options = _parser_for(name, words)
    options = parser.parse(words)
    assert model_options.given(options) is not None
    assert options.preset is None or options.preset in model_class(name).presets
    make_settings(model_class(name), chosen(options, list(Settings.__dataclass_fields__)))


@pytest.mark.parametrize(("page", "code"), MENTIONS)
def test_documented_options_are_options_of_some_model(page, code):
    code = re.sub(r"--model\.[\w-]+\.", "--model.", code)  # an option of a part is one of a model
    words = shlex.split(code.split(" -o ")[0])
    if any(re.fullmatch(r"[A-Z]+|…|\W|[^\x00-\x7f]", word) for word in words) or len(words) == 1:  # no values
        flags = {word for word in words if word.startswith("--model.")}
        assert any(flags <= {flag_of(MODEL + o) for o in options_of(vars(model_class(n))["__init__"])} for n in names())
        return
    assert any(takes(name, words) for name in names()), code


def takes(name: str, words: list[str]) -> bool:
    given = [name if word.startswith("runs/") else word for word in words]
    try:
        return bool(parsed(name, given))
    except InputError:
        return False
