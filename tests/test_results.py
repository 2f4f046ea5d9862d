"""The results table is what the program writes from its records, and the recipes behind it exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from markdown_it import MarkdownIt

from unsup.core.config import check_value, normalise_options
from unsup.core.errors import InputError
from unsup.core.escapes import UNSEEN
from unsup.core.registry import model_class
from unsup.core.storage import load_model
from unsup.evaluate.measures import MEASURES, bounded
from unsup.evaluate.records import Figure
from unsup.train.recipes import read_recipe, reproduce, shipped
from unsup.train.results import results_table
from unsup.train.settings import make_settings

ROOT = Path(__file__).parent.parent
RECORDS = [json.loads(line) for line in (ROOT / "RESULTS.jsonl").read_text().splitlines()]


def test_table_is_written_from_the_records():
    assert (ROOT / "RESULTS.md").read_text() == results_table(RECORDS)


def test_every_record_belongs_to_a_recipe_of_today():
    for record in RECORDS:
        recipe = read_recipe(record["recipe"])
        assert record["seed"] in recipe.seeds
        assert record["model"] in {r.name for r in recipe.run}
        assert set(record["figures"]) <= set(recipe.measures)
        for key, figure in record["figures"].items():
            checked = check_value(key, figure, Figure)
            assert bounded(checked, *MEASURES[key].range) == checked


def test_words_of_a_recipe_stay_in_their_cells():
    evil = "a|b `x` <img src=x onerror=alert(1)>\x1b[2J\n| [y](z)\udce9"
    record = {**RECORDS[0], "data": evil, "model": evil, "published": evil, "command": evil}
    page = results_table([record])
    page.encode()
    assert not UNSEEN.search(page.replace("\n", ""))
    rendered = MarkdownIt("commonmark").enable("table").render(page)
    usual = MarkdownIt("commonmark").enable("table").render(results_table([RECORDS[0]]))
    tags = [re.findall(r"<(\w+)", text) for text in (rendered, usual)]
    assert tags[0] == tags[1]
    assert rendered.count("&lt;img") == 4


def test_units_of_text_have_a_table_of_their_own():
    first = next(r for r in RECORDS if "likelihood" in r["figures"])
    figure = first["figures"]["likelihood"]
    of_text = figure | {"detail": figure["detail"] | {"bits_per_unit": {"character": 2.0}}}
    record = {**first, "recipe": "text", "model": "text", "examples": 1000, "figures": {"likelihood": of_text}}
    page = results_table([*RECORDS, record])
    assert page.count("## Likelihood\n") == 1
    header, _, row = page.split("## Likelihood per character\n")[1].split("\n\n")[1].splitlines()[:3]
    cells = dict(zip(header.split(" | "), row.split(" | "), strict=True))
    assert (cells["bits/character"], cells["nats/character"]) == ("2.0000", "1.3863")
    assert cells["test examples"] == "1,000"


@pytest.mark.parametrize("name", shipped())
def test_recipes_name_options_that_exist(name):
    recipe = read_recipe(name)
    for run in recipe.run:
        cls = model_class(run.model)
        options = {name: value for name, value in run.options.items() if not str(value).startswith("run:")}
        normalise_options(run.model, vars(cls)["__init__"], options)
        assert run.preset is None or run.preset in cls.presets
        make_settings(cls, run.training)


TWO_STAGES = """
summary = "an autoencoder, and a prior of its codes"
data = "digits"
seeds = [0]
examples = 20

[[run]]
model = "vq-vae"
label = "codes"
preset = "tiny"
training = { steps = 2, batch_size = 16 }

[[run]]
model = "vq-vae"
label = "prior"
options = { autoencoder = "run:codes", prior = "gated-pixelcnn" }
training = { steps = 2, batch_size = 16 }
"""


def test_a_run_of_a_recipe_takes_the_model_of_an_earlier_one(tmp_path):
    path = tmp_path / "two.toml"
    path.write_text(TWO_STAGES)
    reproduce(read_recipe(str(path)), runs=tmp_path / "runs", results=tmp_path / "R.md", progress="off")
    first, second = (load_model(tmp_path / "runs/two" / f"{name}-0") for name in ("codes", "prior"))
    state = second.state_dict()
    for name, value in first.state_dict().items():
        assert torch.equal(state[name], value)


def test_a_run_of_a_recipe_names_an_earlier_one(tmp_path):
    path = tmp_path / "two.toml"
    path.write_text(TWO_STAGES.replace("run:codes", "run:coeds"))
    with pytest.raises(InputError, match=r"'run:coeds' is not an earlier run; these are 'codes'"):
        reproduce(read_recipe(str(path)), runs=tmp_path / "runs", results=tmp_path / "R.md", progress="off")
