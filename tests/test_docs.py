"""The API reference builds, and everything public has words and an example."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

import unsup
from unsup.core.registry import model_class, names

SCRIPT = Path(__file__).parents[1] / "scripts" / "api_reference.py"


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
