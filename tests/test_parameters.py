"""The page of parameters is what its script writes, lists every paper preset, and meets what was published."""

from __future__ import annotations

import importlib.util
import re
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest

import unsup
from unsup.core.event import BINARY, Event, Support
from unsup.core.registry import model_class

ROOT = Path(__file__).parents[1]


def _script() -> ModuleType:
    specification = importlib.util.spec_from_file_location("parameters", ROOT / "scripts" / "parameters.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module  # dataclasses look their module up
    specification.loader.exec_module(module)
    return module


script = _script()
ENTRIES = [pytest.param(e, id=f"{e.model}-{e.preset}-{i}") for i, e in enumerate(script.PRESETS + script.VARIANTS)]


@pytest.mark.slow
def test_the_page_is_what_the_script_writes():
    assert script.FILE.read_text() == script.text(), "run python scripts/parameters.py"


def test_every_paper_preset_is_listed_once():
    listed = [(entry.model, entry.preset) for entry in script.PRESETS]
    assert sorted(listed) == sorted(script.paper_presets())


@pytest.mark.parametrize("entry", ENTRIES)
def test_published_numbers_are_met_and_misses_have_reasons(entry):
    if entry.published is None:
        assert not entry.missed
    else:
        assert entry.within_tolerance != entry.missed
    assert entry.note


PRINTED = [
    code.split()[2:]
    for page in sorted((ROOT / "docs").glob("*.md"))
    for code in re.findall(r"`(unsup fit [^`\n]*/ [^`\n]*--preset paper[^`\n]*)`", page.read_text())
]
"""Commands that train a preset of a paper on a folder."""


@pytest.mark.parametrize("words", PRINTED, ids=[f"{words[1]}-{words[-1]}" for words in PRINTED])
def test_printed_trainings_of_presets_have_examples_of_their_size(words):
    name, preset = words[1], words[words.index("--preset") + 1]
    event = next(e.data[1] for e in script.PRESETS if (e.model, e.preset) == (name, preset))
    given = [pair for pair in pairwise(words) if pair[0] in ("--resize", "--length")]
    if event.is_image:
        assert given == [("--resize", str(event.shape[1]))]
    else:
        assert given == [("--length", str(model_class(name).presets[preset]["window"]))]


@pytest.mark.parametrize(
    ("name", "event", "options"),
    [
        ("nade", Event((5,), BINARY), {"orderless": True, "layers": 2}),
        ("pixelcnn++", Event((3, 4, 4), Support("ordinal", 256)), {}),
        ("transformer", Event((6,), Support("nominal", 5), "sequence"), {"auxiliary": True}),
    ],
)
def test_counting_on_meta_is_counting(name, event, options):
    model = unsup.create(name, event, preset="tiny", **options)
    tensors = {id(p): p.numel() for module in model.modules() for p in module._parameters.values() if p is not None}
    entry = script.Entry(name, "tiny", ("", event), None, "", options=options)
    assert script.count(entry) == sum(tensors.values())
    with script._parameters_on_meta():
        hollow = unsup.create(name, event, preset="tiny", **options)
    assert all(p.is_meta for p in hollow.parameters())
    assert not any(p.is_meta for p in unsup.create(name, event, preset="tiny").parameters())


def test_stated_reasons_make_up_the_differences():
    found = {(e.model, e.options.get("layers")): e for e in script.VARIANTS + script.PRESETS if e.missed}
    for layers in (12, 64):  # learned positions before every layer, instead of once
        entry = found["transformer", layers]
        assert entry.ours + (layers - 1) * 512 * 512 == pytest.approx(entry.published.count, rel=0.01)
    gated = found["gated-pixelcnn", None]
    unseen = (25 - 15) + (5 - 3)  # taps of both kernels
    whole = gated.ours + unseen * 768 * (3 + 19 * 384)
    assert whole == pytest.approx(185e6, rel=0.002)
    assert whole == pytest.approx(gated.published.count, rel=0.05)
    fvsbn = next(e for e in script.PRESETS if e.model == "fvsbn")
    assert fvsbn.ours - 784 * 785 // 2 == 784 * 783 // 2 + 784 == 307_720
