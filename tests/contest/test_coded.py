"""A contest codes the test examples with its models: real bytes beside the implied ones, once, where time permits."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest

import unsup
from unsup.coding.chunks import scheme_class
from unsup.contest import contest as module
from unsup.contest.contest import Contest
from unsup.contest.plan import Asked, Entry
from unsup.core.registry import create
from unsup.evaluate import compressed
from unsup.evaluate.records import Results

MODELS: dict[str, dict[str, Any]] = {
    "histogram": {},
    "made": {"hidden": [48]},
    "pixelcnn": {"channels": 8, "blocks": 1, "head_channels": 16},
    "vae": {"latent_dim": 8, "hidden": [64]},
}
ASKED = Asked("digits", {}, 0.5, tuple(MODELS))
GENERAL = 24.0  # bytes of an example with zstandard


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A contest of small models, trained for some steps, with time to measure all."""
    whole, out = module.fit, tmp_path_factory.mktemp("coded") / "report"
    entries = [Entry(name, options, counts=name == "histogram") for name, options in MODELS.items()]

    def few_steps(*args: Any, **settings: Any) -> Any:
        steps = None if isinstance(args[0], type(create("histogram", args[1]))) else 200
        limits = {"minutes": None, "steps": steps, "lr": 5e-3, "validate_every": 0} if steps else {}
        return whole(*args, **{**settings, **limits})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "fit", few_steps)
        patch.setattr(module, "contestants", lambda *args: (entries, {}))
        patch.setattr(module, "counted", lambda minutes, available: 360 if available == 360 else 16)
        patch.setattr(module, "_LEAST", 100.0)
        Contest(out, ASKED).run()
    return out


@pytest.fixture(scope="module")
def results(folder: Path) -> Results:
    found: Results = json.loads((folder / "results.json").read_text())
    return found


def test_every_model_has_real_bytes_or_says_why(results: Results) -> None:
    event, coded = unsup.load_data("digits").event, []
    for contestant in results["contestants"]:
        assert contestant["status"] == "done", contestant["reason"]
        (run,), name = contestant["runs"], contestant["name"]
        implied = run["figures"]["implied_bytes"]
        reason = scheme_class(create(name, event, **MODELS[name]))
        if isinstance(reason, str):
            assert run["missing"]["coded_bytes"] == f"{name} has no coder ({reason})"
        elif implied["value"] < 0.98 * GENERAL:
            figure = run["figures"]["coded_bytes"]
            assert figure["n"] == implied["n"] == results["examples"] == 360
            if implied["detail"]["kind"] == "exact":
                assert 0 <= figure["detail"]["gap"] < 0.01
                assert figure["value"] == pytest.approx(implied["value"], rel=0.01)
            coded.append(name)
        elif "coded_bytes" in run["missing"]:
            assert "a general codec needs fewer bytes" in run["missing"]["coded_bytes"]
    assert {"histogram", "made", "pixelcnn"} <= set(coded)
    assert set(results["places"]["coded_bytes"]) == set(coded)


def test_page_and_tables_have_both(folder: Path, results: Results) -> None:
    page = re.sub("<[^>]+>", " ", (folder / "index.html").read_text())
    lines = {row["contestant"]: row for row in csv.DictReader((folder / "results.csv").open())}
    for name in ("histogram", "made", "pixelcnn"):
        (run,) = next(c for c in results["contestants"] if c["name"] == name)["runs"]
        own = run["figures"]["coded_bytes"]
        for key in ("implied_bytes", "coded_bytes"):
            assert f"{run['figures'][key]['value']:.2f}" in page
            assert float(lines[name][key]) == run["figures"][key]["value"]
        assert f"{own['detail']['file_bytes']:,}" in page
        assert f"{100 * own['detail']['gap']:.2f} % more than implied" in page
        assert "coded_bytes" in run["commands"]["implied_bytes"]
        assert "more than implied" in (folder / run["run"] / "report.html").read_text()
    (line,) = (line for line in results["summary"] if line.startswith("The likelihood of"))
    assert "more than implied" in line
    assert "The smallest file of a general codec, xz" in line


def test_a_contest_that_is_resumed_codes_nothing_again(
    folder: Path, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    def coded_again(*args: Any) -> bytes:
        raise AssertionError("coded again")

    monkeypatch.setattr(compressed, "compress", coded_again)
    monkeypatch.setattr(module, "counted", lambda minutes, available: 360 if available == 360 else 16)
    monkeypatch.setattr(module, "_LEAST", 100.0)
    again = Contest(folder, None, purpose="compression").run()
    assert [c["runs"] for c in json.loads((folder / "results.json").read_text())["contestants"]] == [
        c["runs"] for c in results["contestants"]
    ]
    assert again["summary"][0].startswith("The likelihood of")


def test_without_time_the_reason_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressed, "_seconds_for", lambda model, x, deadline: 4000.0)
    found = Contest(tmp_path / "r", Asked("digits", {}, 0.02, ("histogram",))).run()
    (run,) = found["contestants"][0]["runs"]
    assert run["missing"]["coded_bytes"].startswith("coding would take about 1 h 06 min here, but ")
    assert "unsup eval" in run["missing"]["coded_bytes"]
    assert "coded_bytes" not in found["places"]
    page = (tmp_path / "r/index.html").read_text()
    assert "none was written: coding would take about 1 h 06 min here" in page
    assert "No file was written with a model." in page
