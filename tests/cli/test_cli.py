"""A user's stories through the command line."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
import subprocess
import sys
import wave

import numpy as np
import pytest
import torch
from PIL import Image

import unsup
from conftest import ON_DIGITS
from unsup.cli import fit, sample
from unsup.core.registry import names, row
from unsup.evaluate.likelihood import log_probs
from unsup.pictures.gallery import Drawn

MODELS = names()
SCORERS, SAMPLERS = ([n for n in ON_DIGITS if ability in row(n).abilities] for ability in ("score", "sample"))


def test_models_lists_every_model_with_its_paper(call):
    found = call("models")
    assert found.status == 0
    assert all(name in found.out for name in MODELS)
    rows = json.loads(call("models", "--json").out)
    assert [r["name"] for r in rows] == list(MODELS)
    flows = json.loads(call("models", "--family", "flows", "--json").out)
    assert {r["family"] for r in flows} == {"flows"}


def test_models_are_described_by_name(call):
    found = call("models", "vae", "made")
    assert found.status == 0, found.err
    assert found.out.startswith("vae: ")
    assert "\nmade: " in found.out
    assert "https://arxiv.org/abs/1502.03509" in found.out
    assert [r["name"] for r in json.loads(call("models", "made", "--json").out)] == ["made"]
    assert "did you mean 'vae'" in call("models", "vaee").err
    assert "not both" in call("models", "vae", "--family", "latent").err


def test_data_describes_a_set_and_names_the_models_that_take_it(call):
    assert "1,797 images, 1×8×8, 17 levels, 10 classes" in call("data", "digits").out
    assert "made" in call("data", "digits").out.splitlines()[-1]
    assert json.loads(call("data", "digits", "--json").out)["sizes"] == {"train": 1257, "validation": 180, "test": 360}
    assert "ring8" in call("data").out


@pytest.mark.parametrize("name", SCORERS)
def test_eval_prints_one_typed_object_that_agrees_with_the_library(call, runs, name):
    found = json.loads(call("eval", runs / name, "--json").out)
    assert set(found) == {"run", "model", "data", "split", "figures", "missing"}
    likelihood = found["figures"]["likelihood"]
    detail = likelihood["detail"]
    assert (found["model"], found["data"], found["split"], likelihood["n"]) == (name, "digits", "test", 360)
    assert detail["bits_per_dim"] == pytest.approx(likelihood["value"] / (64 * math.log(2)))
    scores = log_probs(unsup.load(runs / name), unsup.load_data("digits").test.x)
    assert likelihood["value"] == pytest.approx(-scores.mean().item(), rel=1e-5)
    assert likelihood["error"] == pytest.approx(scores.std().item() / math.sqrt(360), rel=1e-5)
    assert detail["kind"] == unsup.load(runs / name).likelihood_kind
    assert 0 < detail["bits_per_dim"] < 3 * math.log2(17)


def test_a_bound_without_draws_claims_no_importance_samples(call, tmp_path):
    for name, used in (("vq-vae", 1), ("vae", 3)):
        fitted = call("fit", "digits", name, "-o", tmp_path / name, "--preset", "tiny", "--steps", 1, "--limit", 50)
        assert fitted.status == 0
        told = call("eval", tmp_path / name, "--importance-samples", 3, "--examples", 20).out
        assert ("[bound, 3 importance samples]" in told) == (used == 3)
        assert ("[bound]" in told) == (used == 1)
        entries = json.loads((tmp_path / name / "eval.json").read_text())["results"]
        kept = [e for e in entries if e["settings"].get("examples") == 20]
        assert [(e["settings"]["importance_samples"], e["figure"]["detail"]["samples"]) for e in kept] == [(used, used)]


@pytest.mark.parametrize("name", SAMPLERS)
def test_samples_are_raw_values_and_follow_the_seed(call, runs, name, tmp_path):
    for out, seed in (("a.npy", 1), ("b.npy", 1), ("c.npy", 2)):
        assert call("sample", runs / name, "-n", 7, "-o", tmp_path / out, "--seed", seed).status == 0
    a, b, c = (np.load(tmp_path / f) for f in ("a.npy", "b.npy", "c.npy"))
    assert a.shape == (7, 1, 8, 8)
    assert a.dtype == np.uint8
    assert a.max() <= 16
    assert (a == b).all()
    if name != "gan":  # an untrained generator is one grey
        assert (a != c).any()


def test_sample_grid_shows_the_samples(call, runs, tmp_path):
    call("sample", runs / "made", "-n", 4, "-o", tmp_path / "g.npy")
    call("sample", runs / "made", "-n", 4, "-o", tmp_path / "g.png")
    raw, grid = np.load(tmp_path / "g.npy"), np.array(Image.open(tmp_path / "g.png").convert("L"))
    zoom = 8
    assert grid.shape == (17 * zoom, 17 * zoom)  # two rows of two, with a pixel between them
    for i, place in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        top, left = (zoom * 9 * p for p in place)
        found = grid[top : top + 8 * zoom : zoom, left : left + 8 * zoom : zoom]
        assert (found == np.round(raw[i, 0].astype(float) * 255 / 16)).all()


def recordings(folder):
    folder.mkdir()
    for i in range(12):
        with wave.open(str(folder / f"{i}.wav"), "wb") as file:
            file.setparams((1, 2, 4000, 0, "NONE", ""))
            file.writeframes((8000 * np.sin(np.arange(512) * (0.1 + 0.1 * i))).astype("<i2").tobytes())
    return folder


def text(folder):
    path = folder.with_suffix(".txt")
    path.write_text("All the world is a stage, and all the men and women merely players. " * 20)
    return path


def table(folder):
    path = folder.with_suffix(".csv")
    rows = np.random.default_rng(0).normal(size=(60, 3)).round(3)
    path.write_text("\n".join(["sepal,petal,width", *(",".join(map(str, row)) for row in rows.tolist())]))
    return path


def clips(folder):
    path = folder.with_suffix(".npz")
    x = np.random.default_rng(0).integers(0, 2, (60, 4, 1, 6, 6)).astype(np.uint8)
    np.savez(path, x=x)
    return path


@pytest.mark.parametrize(
    ("make", "options", "seen"),
    [
        (recordings, ("--length", 128), "spectrogram"),
        (text, ("--length", 20), "pieces of text"),
        (table, (), "histograms of all 3 columns"),
        (clips, (), "clips in"),
    ],
)
def test_runs_on_every_kind_of_data_have_pictures(call, tmp_path, make, options, seen):
    data, run = make(tmp_path / "data"), tmp_path / "run"
    found = call("fit", data, "histogram", *options, "-o", run, "--preset", "tiny", "--plain")
    assert found.status == 0, found.err
    last = Drawn.read(sorted((run / "samples").glob("*.png"))[-1].read_bytes())
    assert seen in last.alt
    assert "training" in last.alt + last.caption  # real data is beside the samples

    call("sample", run, "-n", 5, "-o", tmp_path / "with.png")
    (data.rename(tmp_path / "gone"), call("sample", run, "-n", 5, "-o", tmp_path / "again.png"))
    assert (tmp_path / "with.png").read_bytes() == (tmp_path / "again.png").read_bytes()  # the data is not needed
    drawn = Drawn.read((tmp_path / "with.png").read_bytes())
    assert seen in drawn.alt
    assert "Samples of run" in drawn.alt

    (run / "pictures.safetensors").unlink()
    found = call("sample", run, "-n", 5, "-o", tmp_path / "alone.png")
    assert found.status == 0
    assert "the scale of the picture is that of the samples themselves" in found.err + found.out


def test_a_damaged_file_of_examples_is_said_and_done_without(call, runs, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs / "made", run)
    (run / "pictures.safetensors").write_bytes(b"nonsense")
    found = call("sample", run, "-n", 2, "-o", tmp_path / "x.png")
    assert found.status == 0
    assert "pictures.safetensors is damaged" in found.err + found.out


def test_a_picture_of_some_examples_says_how_many(call, runs, tmp_path):
    folder, picture = tmp_path / "run", tmp_path / "x.png"
    assert call("fit", text(tmp_path / "t"), "histogram", "--length", 300, "-o", folder, "--plain").status == 0
    said = call("sample", folder, "-n", 300, "-o", picture).out
    assert re.search(rf"{picture} shows the first \d+ of 300 samples of {folder}; a .npy file has all", said)
    assert f"300 samples of {folder} in" in call("sample", folder, "-n", 300, "-o", tmp_path / "x.npy").out
    sound, vae = recordings(tmp_path / "sound"), tmp_path / "vae"
    options = ("--length", 128, "-o", vae, "--steps", 2, "--preset", "tiny", "--plain")
    assert call("fit", sound, "vae", *options).status == 0
    assert call("encode", vae, sound, "-o", tmp_path / "z.npz").status == 0
    said = call("decode", vae, tmp_path / "z.npz", "-o", picture).out
    assert re.search(rf"{picture} shows the first 6 of \d+ decoded examples of ", said)


def test_a_slow_sampler_says_how_long_it_takes(call, runs, tmp_path, monkeypatch):
    """The estimate comes during the first of many pixels, not after a chunk of all samples."""
    clock = iter(range(0, 10**6, 3))
    monkeypatch.setattr(sample.time, "monotonic", lambda: float(next(clock)))
    found = call("sample", runs / "made", "-n", 8, "-o", tmp_path / "x.npy")
    assert found.status == 0
    assert re.search(r"8 samples will take about \d+ min \d+ s; fewer samples \(-n\) take less", found.err)
    assert found.err.count("will take about") == 1
    monkeypatch.setattr(sample.time, "monotonic", lambda: 0.0)
    assert "will take" not in call("sample", runs / "made", "-n", 8, "-o", tmp_path / "x.npy").err


def test_the_name_of_the_output_is_checked_before_the_work(call, runs, tmp_path, monkeypatch):
    monkeypatch.setattr("unsup.evaluate.samples.draw_samples", lambda *_, **__: pytest.fail("samples were drawn"))
    found = call("sample", runs / "made", "-o", tmp_path / "x.jpg")
    assert (found.status, found.err.count("\n")) == (2, 1)
    assert "should end in .png" in found.err


def test_temperature_works_where_it_has_meaning_and_is_refused_elsewhere(call, runs, tmp_path):
    call("sample", runs / "made", "-n", 200, "-o", tmp_path / "cold.npy", "--sample.temperature", 0.01)
    cold = np.load(tmp_path / "cold.npy")
    assert len(np.unique(cold.reshape(200, -1), axis=0)) < 20
    refused = call("sample", runs / "gaussian-mixture", "-o", tmp_path / "x.npy", "--sample.temperature", 0.5)
    assert (refused.status, (tmp_path / "x.npy").exists()) == (2, False)
    assert "its sampling has no options" in refused.err


def test_score_writes_a_typed_log_likelihood_for_each_example(call, runs, tmp_path):
    x = unsup.load_data("digits").test.x[:6].numpy()
    np.save(tmp_path / "mine.npy", x)
    assert call("score", runs / "made", tmp_path / "mine.npy", "-o", tmp_path / "s.csv").status == 0
    rows = list(csv.DictReader((tmp_path / "s.csv").open()))
    expected = log_probs(unsup.load(runs / "made"), torch.from_numpy(x))
    assert [float(r["log_prob_nats"]) for r in rows] == pytest.approx(expected.tolist(), abs=1e-4)
    assert {r["kind"] for r in rows} == {"exact"}


def test_numbers_of_codes_are_written_without_a_point_and_are_decoded(call, tmp_path):
    run, codes = tmp_path / "vq", tmp_path / "codes.csv"
    assert call("fit", "digits", "vq-vae", "-o", run, "--steps", 2, "--preset", "tiny", "--plain").status == 0
    assert call("encode", run, "digits", "-o", codes).status == 0
    cells = [line.split(",")[1:] for line in codes.read_text().splitlines()[1:]]
    assert all(cell.isdecimal() for row in cells for cell in row)
    assert call("decode", run, codes, "-o", tmp_path / "x.npy").status == 0


def test_a_model_of_counts_tells_no_number_of_parameters(call, tmp_path):
    assert "parameters" not in call("fit", "digits", "naive-bayes", "-o", tmp_path / "nb", "--plain").out


@pytest.mark.parametrize("name", ["vae", "realnvp"])
def test_encode_and_decode_go_through_files(call, runs, name, tmp_path):
    assert call("encode", runs / name, "digits", "-o", tmp_path / "z.npz").status == 0
    assert call("decode", runs / name, tmp_path / "z.npz", "-o", tmp_path / "x.npy").status == 0
    x, z = np.load(tmp_path / "x.npy"), np.load(tmp_path / "z.npz")["z"]
    real = unsup.load_data("digits").test.x
    model = unsup.load(runs / name)
    assert x.shape == tuple(real.shape)
    assert torch.allclose(model.encode(real[:5]), torch.from_numpy(z[:5]), atol=1e-4)
    if name == "realnvp":
        assert (x == real.numpy()).mean() > 0.999  # invertible: codes lead back to the images


def test_check_reports_laws_of_a_model_and_of_a_run(call, runs):
    found = call("check", "histogram")
    assert found.status == 0, found.out
    assert "passed" in found.out
    found = call("check", runs / "made")
    assert found.status == 0, found.out


def test_cite_prints_bibtex_of_a_run(call, runs):
    found = call("cite", runs / "made")
    assert found.out.startswith("@")
    assert "Germain" in found.out


def test_run_folder_of_the_users_own_pngs(call, tmp_path):
    folder = tmp_path / "pngs"
    folder.mkdir()
    digits = unsup.load_data("digits").train.x[:40]
    for i, x in enumerate(digits):
        Image.fromarray((x[0] * 15).numpy()).save(folder / f"{i}.png")
    run = tmp_path / "run"
    done = call("fit", folder, "pixelcnn", "-o", run, "--preset", "tiny", "--steps", 3, "--plain")
    assert done.status == 0, done.err
    assert call("eval", run).status == 0
    assert call("sample", run, "-n", 4, "-o", tmp_path / "g.png").status == 0
    names_in_run = {p.name for p in run.iterdir()}
    expected = {
        "config.json",
        "events.jsonl",
        "checkpoints",
        "samples",
        "env.json",
        "eval.json",
        "report.html",
        "README.md",
    }
    assert expected <= names_in_run
    assert list((run / "samples").glob("*.png"))


def test_score_a_table_of_ones_own(call, tmp_path):
    generator = np.random.default_rng(0)
    table = generator.normal(size=(300, 3)) @ np.array([[1, 0.5, 0], [0, 1, 0], [0, 0, 100.0]]) + [0, 5, 1000]
    lines = ["a,b,c"] + [",".join(map(repr, row)) for row in table.tolist()]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    run = tmp_path / "run"
    assert (
        call("fit", tmp_path / "t.csv", "gaussian-mixture", "-o", run, "--model.components", 1, "--plain").status == 0
    )
    odd = ["a,b,c", "0.0,5.0,1000.0", "9.0,-5.0,3000.0"]
    (tmp_path / "odd.csv").write_text("\n".join(odd))
    assert call("score", run, tmp_path / "odd.csv", "-o", tmp_path / "s.csv").status == 0
    usual, outlier = (float(r["log_prob_nats"]) for r in csv.DictReader((tmp_path / "s.csv").open()))
    assert usual > outlier + 20


def test_own_recipe_writes_the_results_table(call, tmp_path):
    (tmp_path / "mine.toml").write_text(
        'summary = "s"\ndata = "digits"\nseeds = [0, 1]\n\n[[run]]\nmodel = "histogram"\npublished = "none"\n'
        '\n[[run]]\nmodel = "made"\ntraining = { steps = 2 }\noptions = { hidden = [8] }\n'
    )
    for _ in range(2):  # the second time everything is there already, and the table is the same
        done = call("reproduce", tmp_path / "mine.toml", "-o", tmp_path / "R.md", "--runs", tmp_path / "runs")
        assert done.status == 0, done.err
        table = (tmp_path / "R.md").read_text()
    records = [json.loads(line) for line in (tmp_path / "R.jsonl").read_text().splitlines()]
    assert len(records) == 8
    values = {r["figures"]["likelihood"]["value"] for r in records if r["model"] == "made"}
    assert len(values) == 2
    mean, spread = np.mean(list(values)), np.std(list(values), ddof=1)
    assert f"{mean:.2f} ± {spread:.2f}" in table
    assert all(r["environment"]["machine"] for r in records)


def test_reproduce_lists_the_recipes(call):
    out = call("reproduce").out
    assert "made" in out
    assert "digits" in out


@pytest.mark.parametrize("name", ["made", "histogram", "gaussian-mixture", "gan"])
def test_resuming_a_finished_run_changes_nothing_and_says_so_in_one_line(call, runs, tmp_path, name):
    run = tmp_path / "run"
    shutil.copytree(runs / name, run)
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    found = call("fit", "--resume", "-o", run)
    assert found.status == 0
    assert found.out == ""
    (line,) = found.err.splitlines()
    assert line.startswith(f"{run} has already finished (")
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before


def test_a_step_is_shown_once(call, tmp_path):
    """Plain lines: one for each validation, though each wants to be shown at once."""
    for words, unit in ((("made", "--steps", 30), "step"), (("gaussian-mixture",), "pass")):
        err = call("fit", "moons", *words, "--n", 300, "-o", tmp_path / words[0], "--preset", "tiny", "--plain").err
        shown = [line.split()[1] for line in err.splitlines() if line.startswith(unit)]
        assert len(shown) == len(set(shown)) >= 2, shown
    assert shown != []


def test_a_run_that_lost_its_best_parameters_is_evaluated_with_a_word_about_it(runs, tmp_path):
    shutil.copytree(runs / "made", tmp_path / "r")
    (tmp_path / "r/checkpoints/best.safetensors").unlink()
    command = [sys.executable, "-m", "unsup", "eval", str(tmp_path / "r")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0
    assert "nats" in done.stdout
    (line,) = done.stderr.splitlines()
    assert "the best parameters are lost" in line
    assert "using the last parameters, of step 5" in line


def test_no_help_holds_the_markup_of_docstrings(call):
    found = call("fit", "digits", "made", "--help").out
    assert "--domain-b" in found
    assert "**" not in found
    assert "``" not in found


@pytest.mark.parametrize(("model", "batch", "warmup"), [("moco", 256, 100), ("made", 100, 0)])
def test_help_shows_the_training_defaults_of_the_model(call, model, batch, warmup):
    found = " ".join(call("fit", "digits", model, "--help").out.split())
    assert f"may differ by one [{batch}]" in found
    assert f"steps of linear warm-up [{warmup}]" in found


@pytest.mark.parametrize("model", ["made", "vae", "realnvp"])
def test_a_model_much_larger_than_its_data_is_warned_of(call, tmp_path, monkeypatch, model):
    """Every model says it when training starts, with its largest part and options that are smaller."""
    options = ("--steps", 1, "--plain", "--limit", 20)
    found = call("fit", "digits", model, "-o", tmp_path / "a", *options)
    assert (found.status, "times the" in found.err) == (0, False)
    monkeypatch.setattr(fit, "_MANY", 1000)
    found = call("fit", "digits", model, "-o", tmp_path / "b", *options)
    said = next(line for line in found.err.splitlines() if "times the" in line)
    largest = max(unsup.load(tmp_path / "b").named_parameters(), key=lambda p: p[1].numel())
    assert f"({largest[1].numel():,} of them in {largest[0]})" in said
    assert "--preset tiny: " in said
    assert "a convolutional model (pixelcnn, gated-pixelcnn, " in said
    assert (
        "of --preset tiny" not in call("fit", "digits", model, "-o", tmp_path / "c", *options, "--preset", "tiny").err
    )


def test_measures_explains_the_one_that_is_asked_for(call):
    found = call("measures", "fid").out
    for words in (
        "fid: Fréchet distance",
        "better    lower",
        "from 0 to ∞",
        "held-out data",
        "unsup eval RUN --measures fid",
    ):
        assert words in found
    assert list(json.loads(call("measures", "fid,auroc", "--json").out)) == ["fid", "auroc"]
    found = call("measures", "fd")
    assert (found.status, found.err.count("\n")) == (2, 1)
    assert "did you mean 'fid'" in found.err
