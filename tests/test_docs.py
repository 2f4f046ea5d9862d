"""The API reference builds, and everything public has words and an example."""

from __future__ import annotations

import importlib.util
import re
from collections import Counter
from pathlib import Path

import pytest

import unsup
from unsup.core.event import Event, Support
from unsup.core.model import HasDensity, HasEnergy
from unsup.core.registry import model_class, names, row

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "api_reference.py"


@pytest.mark.slow
def test_the_reference_has_a_page_for_every_module_and_every_public_name(tmp_path, monkeypatch):
    render = pytest.importorskip("pdoc.render", reason="the extra docs is not installed")
    configure = render.configure

    def plainly(**options):
        """Without coloured source and the index of the search, which take most of the time."""
        configure(**{**options, "show_source": False, "search": False})

    monkeypatch.setattr(render, "configure", plainly)
    spec = importlib.util.spec_from_file_location("api_reference", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.write(tmp_path)
    front = (tmp_path / "unsup.html").read_text()
    for name in unsup.__all__:
        assert f'id="{name}"' in front, name
    for name in names():
        cls = model_class(name)
        page = tmp_path / f"{cls.__module__.replace('.', '/')}.html"
        assert f'id="{cls.__name__}"' in page.read_text(), name


@pytest.mark.parametrize("name", names())
def test_models_cite_their_paper_and_show_an_example(name):
    text = model_class(name).__doc__ or ""
    assert "https://" in text or "20" in text or "19" in text, "the paper and its year"
    assert "Args:" in text
    assert ">>> " in text


@pytest.mark.parametrize("name", [n for n in unsup.__all__ if n != "__version__"])
def test_public_names_have_words(name):
    assert len((getattr(unsup, name).__doc__ or "").split()) > 5


@pytest.mark.parametrize("page", ["README.md", "docs/compression.md"])
def test_tables_of_models_have_each_model_once(page):
    """In the rows of the first table of models whose first cell has names only."""
    text = (ROOT / page).read_text()
    table = text[re.search(r"^\| model \|", text, re.I | re.M).start() :].split("\n\n", 1)[0]
    cells = re.findall(r"^\| ((?:`[^`]+`(?:, )?)+) \|", table, re.M)
    found = Counter(name for cell in cells for name in re.findall(r"`([^`]+)`", cell))
    assert found.keys() <= set(names())
    assert len(found) > 10
    assert not [name for name, count in found.items() if count > 1]


def test_the_page_about_data_names_the_models_that_take_missing_values():
    text = (ROOT / "docs" / "data.md").read_text()
    told = re.search(r"\*\*Missing values\*\* are kept for models that support them \(([^)]*)\)", text)[1]
    assert set(re.findall(r"`([^`]+)`", told)) == {name for name in names() if model_class(name).takes_missing}


def test_the_page_about_scikit_learn_has_the_kind_of_every_score():
    """Each model is in the row of a kind that it has on one of these events; some flows need none."""
    text = (ROOT / "docs" / "sklearn.md").read_text()
    told = {
        kind: set(re.findall(r"`([^`]+)`", cell))
        for kind, cell in re.findall(r"^\| `(exact|bound|estimate|unnormalised)` \|[^|]*\| (.*) \|$", text, re.M)
    }
    events = [
        Event((3,), Support("real")),
        Event((3,), Support("ordinal", 5)),
        Event((30,), Support("binary")),
        Event((3,), Support("binary")),
        Event((1, 8, 8), Support("ordinal", 17)),
        Event((4,), Support("ordinal", 5), "sequence"),
    ]
    for name in names():
        cls = model_class(name)
        if not issubclass(cls, (HasDensity, HasEnergy)):
            continue
        found = [unsup.create(name, e, preset="tiny") for e in events if cls.refusal(e) is None]
        kinds = {m.likelihood_kind if isinstance(m, HasDensity) else "unnormalised" for m in found}
        claimed = {kind for kind, models in told.items() if name in models}
        assert claimed or row(name).family in ("autoregressive", "flows"), name
        if name not in ("dbn", "dbm", "rbm", "latent", "ffjord", "residual-flow"):  # by their sizes
            assert claimed <= kinds, name
