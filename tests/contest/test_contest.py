"""A whole contest: its figures can be had again by the commands it names, it survives failures and stops."""

from __future__ import annotations

import base64
import csv
import json
import math
import os
import re
import shlex
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import unsup
from unsup.cli.main import main
from unsup.contest.contest import Contest, contest_data
from unsup.contest.plan import Asked
from unsup.core.errors import InputError
from unsup.core.storage import held_alone
from unsup.evaluate.exam import Exam
from unsup.evaluate.measures import MEASURES, possible_measures
from unsup.report.page import fit_command, read_run, write_page
from unsup.train.counting import CountingTrainer
from unsup.train.runs import open_run

pytestmark = pytest.mark.usefixtures("exact_pictures")
MINUTES = 0.02


def asked(**changes):
    chosen = {
        "data": "moons",
        "data_options": {"n": 300},
        "minutes": MINUTES,
        "models": ("gaussian-mixture", "vae", "gan"),
    }
    return Asked(**(chosen | changes))


@pytest.fixture(scope="module")
def contest(tmp_path_factory):
    """A finished contest of three models on points of the plane."""
    folder = tmp_path_factory.mktemp("contest") / "report"
    Contest(folder, asked()).run()
    return folder


@pytest.fixture(scope="module")
def results(contest):
    return json.loads((contest / "results.json").read_text())


def by_name(results):
    return {c["name"]: c for c in results["contestants"]}


def test_everyone_is_done_and_has_what_it_can_have(results):
    found = by_name(results)
    assert {c["status"] for c in found.values()} == {"done"}
    gan, vae = found["gan"]["runs"][0], found["vae"]["runs"][0]
    assert "has no likelihood" in gan["missing"]["likelihood"]
    assert vae["figures"]["likelihood"]["detail"]["kind"] == "bound"
    assert found["gaussian-mixture"]["runs"][0]["figures"]["likelihood"]["detail"]["kind"] == "exact"
    possible = set(possible_measures(unsup.load_data("moons", n=300)))
    for run in (gan, vae):
        assert set(run["figures"]) | set(run["missing"]) == possible
        assert not set(run["figures"]) & set(run["missing"])


def figures_again(call_json, command):
    return call_json(*shlex.split(command)[1:], "--json")["figures"]


def test_the_commands_beside_the_figures_give_the_same_figures(results, call_json):
    for c in results["contestants"]:
        run = c["runs"][0]
        for key in {"likelihood", "fid", "auroc"} & set(run["commands"]):
            assert figures_again(call_json, run["commands"][key])[key] == run["figures"][key]


def test_one_command_measures_a_run_again(results):
    for c in results["contestants"]:
        run = c["runs"][0]
        assert len(set(run["commands"].values())) == 1
        words = shlex.split(run["commands"]["fid"])
        assert set(words[words.index("--measures") + 1].split(",")) == set(run["commands"])
        assert set(run["commands"]) == {k for k in run["figures"] if MEASURES[k].purpose != "cost"}


@pytest.mark.parametrize("folder", ["r", "a b/r", ".", "/abs"])
def test_commands_that_train_write_beside_the_comparison(tmp_path, monkeypatch, folder):
    """They are run from where the comparison was: what they make is neither in its folder nor there already."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    out = tmp_path / "abs" if folder == "/abs" else here / folder
    given = out if folder == "/abs" else Path(folder)
    (out.parent / f"{out.resolve().name}-histogram-0-again").mkdir(parents=True)
    found = Contest(given, asked(models=("histogram", "gan"))).run()
    made = [c["runs"][0]["command"] for c in found["contestants"]]
    made += [n["command"] for n in found["next"] if n["command"].startswith(("unsup fit", "unsup compare"))]
    assert len(made) > 2
    for command in made:
        words = shlex.split(command)
        new = Path(words[words.index("-o") + 1]).resolve()
        assert not new.exists()
        assert new.parent.is_dir()
        assert not new.is_relative_to(out.resolve())


def test_commands_that_compare_again_keep_what_was_asked(tmp_path):
    np.save(tmp_path / "far.npy", np.random.default_rng(0).normal(9, 1, (40, 2)).astype("float32"))
    anomalies = str(tmp_path / "far.npy")
    wanted = asked(models=("histogram", "gaussian-mixture"), seeds=2, anomalies=anomalies)
    found = Contest(tmp_path / "r", wanted).run()
    artificial = Contest(tmp_path / "s", asked(models=("histogram",), seeds=2), purpose="anomalies").run()
    (longer,) = (n["command"] for n in found["next"] if n["what"] == "give all of them more time")
    (real,) = (n["command"] for n in artificial["next"] if n["what"] == "compare on real anomalies")
    for command, results, new in ((longer, found, {"--minutes": "60"}), (real, artificial, {"--anomalies": "PATH"})):
        again, first = (shlex.split(c) for c in (command, results["command"]))
        assert again[:3] == first[:3] == ["unsup", "compare", "moons"]
        again, first = (dict(zip(words[3::2], words[4::2], strict=True)) for words in (again, first))
        assert again.pop("-o") != first.pop("-o")
        assert again == first | new


def test_training_of_less_than_a_pass_is_remarked(tmp_path, monkeypatch):
    import unsup.contest.contest as module

    whole = module.fit
    monkeypatch.setattr(
        module,
        "fit",
        lambda *args, **options: whole(*args, **{**options, "minutes": None, "steps": 1, "batch_size": 60}),
    )
    found = Contest(tmp_path / "r", asked(models=("gan", "gaussian-mixture"))).run()
    share = 60 / len(unsup.load_data("moons", n=300).train)
    said = f"The training of gan was short: 1 step, {share:.2f} of a pass over the training data."
    assert said in " ".join(found["summary"])
    assert not any("gaussian-mixture was short" in line for line in found["summary"])
    assert "short training" in (tmp_path / "r/index.html").read_text()


@pytest.mark.parametrize(
    ("words", "reason", "advice"),
    [
        (
            ["moons", "--models", "histogram,gan", "--for", "classes"],
            "histogram is not a classifier",
            "choose another purpose",
        ),
        (
            ["digits", "--models", "histogram", "--for", "classes"],
            "is not a classifier",
            "unsup fit digits naive-bayes --given label",
        ),
        (["markov", "--models", "histogram", "--for", "classes"], "the data has no labels", "choose other data"),
        (["markov", "--models", "histogram", "--for", "features"], "the data has no labels", "choose other data"),
        (["moons", "--models", "gan", "--for", "features"], "gan has no codes", "compare such a model"),
        (["moons", "--models", "gan", "--for", "density"], "gan has no likelihood", "compare such a model"),
        (
            ["moons", "--models", "gan", "--for", "anomalies"],
            "neither a likelihood nor an energy",
            "compare such a model",
        ),
        (["moons", "--for", "compression"], "does not imply a number of bytes", "choose other data"),
    ],
)
def test_a_purpose_that_nothing_can_serve_is_refused_before_training(tmp_path, call_error, words, reason, advice):
    said = call_error("compare", *words, "-o", str(tmp_path / "r"))
    assert said.count("\n") == 1
    assert f"--for {words[-1]} is not possible" in said
    assert reason in said
    assert advice in said
    assert not (tmp_path / "r").exists()


def test_runs_that_cannot_serve_a_purpose_are_refused_before_they_are_measured(contest, tmp_path, call_error):
    said = call_error("report", str(contest / "runs/gan-0"), "--for", "density", "-o", str(tmp_path / "page"))
    assert "--for density is not possible" in said
    assert not (tmp_path / "page").exists()


def test_the_command_that_made_a_run_makes_it_again(results, contest, tmp_path):
    run = by_name(results)["gaussian-mixture"]["runs"][0]
    words = shlex.split(run["command"])
    words[words.index("-o") + 1] = str(tmp_path / "again")
    assert main([*words[1:], "--plain"]) == 0
    first, again = open_run(contest / run["run"]).model, open_run(tmp_path / "again").model
    for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_the_command_of_a_run_that_the_time_ended_has_its_passes(tmp_path, monkeypatch):
    first = tmp_path / "first"
    with monkeypatch.context() as slow:
        slow.setattr(CountingTrainer, "_over_budget", lambda trainer, seconds: trainer.done >= 2)
        words = ["fit", "moons", "gaussian-mixture", "--n", "300", "--minutes", "1", "--model.components", "5"]
        assert main([*words, "-o", str(first), "--plain"]) == 0
    command = shlex.split(fit_command(read_run(first), str(tmp_path / "again")))
    assert main([*command[1:], "--plain"]) == 0
    states = [open_run(folder).model.state_dict().values() for folder in (first, tmp_path / "again")]
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))
    assert command[command.index("--steps") + 1] == "2"


def test_what_is_written_agrees(results, contest):
    """CSV, JSON and page speak of the same figures."""
    with (contest / "results.csv").open() as file:
        lines = {line["contestant"]: line for line in csv.DictReader(file)}
    page = (contest / "index.html").read_text()
    for name, c in by_name(results).items():
        run, line = c["runs"][0], lines[name]
        assert line["family"] == c["family"]
        assert line["command"] == run["command"]
        if "likelihood" in run["figures"]:
            assert float(line["likelihood"]) == run["figures"]["likelihood"]["value"]
            assert line["kind"] == run["figures"]["likelihood"]["detail"]["kind"]
            assert f"{run['figures']['likelihood']['value']:.2f}" in page
        assert float(line["fid"]) == run["figures"]["fid"]["value"]
        assert run["command"].split(" -o ")[0] in re.sub("<[^>]+>", "", page)


def test_the_page_of_a_run_has_what_the_comparison_measured(results, contest):
    for name in ("gaussian-mixture", "gan"):
        run = by_name(results)[name]["runs"][0]
        folder = contest / run["run"]
        kept = json.loads((folder / "eval.json").read_text())["results"]
        assert {e["measure"]: e["figure"]["value"] for e in kept} == {k: f["value"] for k, f in run["figures"].items()}
        assert {e["split"] for e in kept} == {"test"}
        assert {e["step"] for e in kept} == {open_run(folder).kept_step}
        page = (folder / "report.html").read_text()
        assert "not been evaluated" not in page + (folder / "README.md").read_text()
        for picture in run["pictures"].values():
            assert base64.b64encode((folder / picture["file"]).read_bytes()).decode() in page


def test_the_page_of_a_run_that_learned_on_has_no_pictures_of_before(results, contest, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(contest / by_name(results)["gaussian-mixture"]["runs"][0]["run"], folder)
    kept = json.loads((folder / "measures.json").read_text())
    kept["measures"]["steps"] += 1
    (folder / "measures.json").write_text(json.dumps(kept))
    write_page(folder)
    assert 'id="pictures"' not in (folder / "report.html").read_text()
    assert 'id="pictures"' in (contest / "runs/gaussian-mixture-0/report.html").read_text()


def test_the_measured_likelihood_is_that_of_the_test_split_alone(results, contest):
    run = by_name(results)["gaussian-mixture"]["runs"][0]
    data = unsup.load_data("moons", n=300)
    model = open_run(contest / run["run"]).model
    with torch.no_grad():
        expected = model.log_prob(data.test.x)
    assert run["figures"]["likelihood"]["value"] == pytest.approx(-float(expected.mean()), rel=1e-6)
    scores = np.load(contest / run["run"] / "scores.npz")["log_prob"]
    assert scores == pytest.approx(expected.numpy(), rel=1e-6)


def test_going_on_with_a_finished_contest_does_no_work(contest):
    before = {p: p.stat().st_mtime_ns for p in contest.glob("runs/*/*.json")}
    seconds = json.loads((contest / "contest.json").read_text())["seconds"]
    said = []
    Contest(contest, None).run(said.append)
    assert [m.stage for m in said] == ["done"] * 3
    assert json.loads((contest / "contest.json").read_text())["seconds"] == seconds
    assert {p: p.stat().st_mtime_ns for p in contest.glob("runs/*/*.json")} == before


def test_a_contest_with_other_wishes_is_refused(contest):
    with pytest.raises(InputError, match="is a comparison with other seeds: 1, not 2"):
        Contest(contest, asked(seeds=2))
    with pytest.raises(InputError, match="is a comparison with other data: 'moons', not 'rings'"):
        Contest(contest, asked(data="rings"))


def test_a_failing_contestant_is_reported_and_the_contest_goes_on(tmp_path, monkeypatch):
    from unsup.families.latent.vae import VAE

    def broken(self, batch, *, generator=None):
        raise RuntimeError("the machine is\n  on fire")

    monkeypatch.setattr(VAE, "loss", broken)
    found = by_name(Contest(tmp_path / "r", asked()).run())
    assert found["vae"]["status"] == "failed"
    assert found["vae"]["reason"] == "RuntimeError: the machine is on fire"
    assert found["gan"]["status"] == found["gaussian-mixture"]["status"] == "done"
    results = json.loads((tmp_path / "r/results.json").read_text())
    assert "vae failed: RuntimeError: the machine is on fire." in results["summary"]
    assert "the machine is on fire" in (tmp_path / "r/index.html").read_text()


def test_a_stopped_contest_goes_on_where_it_was(tmp_path, monkeypatch):
    import unsup.contest.contest as module

    whole, fitted = module.fit, []

    def stopped(model, data, **settings):
        if fitted:
            raise KeyboardInterrupt
        fitted.append(settings["out"])
        return whole(model, data, **settings)

    monkeypatch.setattr(module, "fit", stopped)
    with pytest.raises(KeyboardInterrupt):
        Contest(tmp_path / "r", asked()).run()
    found = by_name(json.loads((tmp_path / "r/results.json").read_text()))
    assert [c["status"] for c in found.values()] == ["done", "waiting", "waiting"]
    monkeypatch.setattr(module, "fit", whole)
    kept = (fitted[0] / "checkpoints/best.safetensors").stat().st_mtime_ns
    found = by_name(Contest(tmp_path / "r", None).run())
    assert {c["status"] for c in found.values()} == {"done"}
    assert (fitted[0] / "checkpoints/best.safetensors").stat().st_mtime_ns == kept


def test_training_cut_short_goes_on_with_the_same_steps(tmp_path, monkeypatch):
    """The steps that a share of the minutes came to are fixed once; a contest that is stopped keeps them."""
    from unsup.train.gradients import GradientTrainer

    step, steps = GradientTrainer._step, []

    def interrupted(self, batches):
        steps.append(self.total)
        if self.total is not None and steps[-2] is None:
            self.stop_signal = 2
        return step(self, batches)

    monkeypatch.setattr(GradientTrainer, "_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Contest(tmp_path / "r", asked(models=("vae",), minutes=0.1)).run()
    first = open_run(tmp_path / "r/runs/vae-0")
    assert not first.finished
    Contest(tmp_path / "r", None).run()
    assert open_run(tmp_path / "r/runs/vae-0").finished
    planned = steps.index(first_total := next(t for t in steps if t is not None))
    assert len(steps) > planned + 1
    assert set(steps[planned:]) == {first_total}


def test_a_held_out_class_is_kept_from_training_and_is_the_anomaly(tmp_path):
    contest = Contest(tmp_path / "r", asked(data="digits", data_options={}, anomalies="class:3", models=("histogram",)))
    whole = unsup.load_data("digits")
    assert not bool((contest.data.train.label == 3).any())
    assert torch.equal(contest.bench.anomalies, whole.test.x[whole.test.label == 3])
    run = contest.run()["contestants"][0]["runs"][0]
    assert "--without 3" in run["command"]
    model = open_run(tmp_path / "r/runs/histogram-0").model
    ordinary, odd = (-model.log_prob(x) for x in (contest.data.test.x, contest.bench.anomalies))
    above = (odd[:, None] > ordinary).double() + 0.5 * (odd[:, None] == ordinary)
    assert run["figures"]["auroc"]["value"] == pytest.approx(float(above.mean()))


def test_other_data_are_the_anomalies(tmp_path):
    np.save(tmp_path / "far.npy", np.full((20, 2), 50.0) + np.arange(20)[:, None])
    results = Contest(tmp_path / "r", asked(models=("gaussian-mixture",), anomalies=str(tmp_path / "far.npy"))).run()
    assert results["contestants"][0]["runs"][0]["figures"]["auroc"]["value"] == 1.0
    np.save(tmp_path / "wide.npy", np.zeros((20, 3)))
    with pytest.raises(InputError, match="expected \\(2,\\)"):
        Contest(tmp_path / "s", asked(models=("gaussian-mixture",), anomalies=str(tmp_path / "wide.npy")))


def test_seeds_give_a_run_each_and_one_contestant(tmp_path):
    results = Contest(tmp_path / "r", asked(models=("gan",), seeds=2)).run()
    (only,) = results["contestants"]
    assert [m["seed"] for m in only["runs"]] == [0, 1]
    values = [m["figures"]["fid"]["value"] for m in only["runs"]]
    assert results["places"]["fid"]["gan"]["value"] == pytest.approx(np.mean(values))
    assert values[0] != values[1]


@pytest.mark.parametrize("sizes", [[(80, 70)] * 12, [(20, 20)] * 6 + [(40, 30)] * 6])
def test_large_and_mixed_pictures_are_looked_at_small(tmp_path, sizes):
    for i, size in enumerate(sizes):
        Image.new("L", size, i).save(tmp_path / f"{i}.png")
    assert contest_data(str(tmp_path), {}, None).event.shape == (1, 32, 32)
    assert contest_data(str(tmp_path), {"resize": 8}, None).event.shape == (1, 8, 8)


def test_small_pictures_stay_as_they_are(tmp_path):
    for i in range(12):
        Image.new("L", (20, 16), i).save(tmp_path / f"{i}.png")
    assert contest_data(str(tmp_path), {}, None).event.shape == (1, 16, 20)


def table(path):
    """Rows a, b, kind, where b follows a and the kind says where both lie."""
    rng = np.random.default_rng(0)
    lines = ["a,b,kind"]
    for i in range(300):
        a = rng.normal(3 * (i % 3))
        lines.append(f"{a:.4f},{a + rng.normal(scale=0.3):.4f},{'xyz'[i % 3]}")
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.mark.parametrize(("given", "columns", "flag"), [("label", 2, ""), (["a"], 1, "--drop a")])
def test_what_is_given_is_left_out_and_the_commands_say_so(tmp_path, given, columns, flag):
    path = table(tmp_path / "t.csv")
    wanted = asked(data=path, data_options={"given": given}, models=("histogram",))
    contest = Contest(tmp_path / "r", wanted)
    assert (contest.data.event.dims, contest.data.given) == (columns, None)
    run = contest.run()["contestants"][0]["runs"][0]
    assert "--given" not in run["command"]
    assert flag in run["command"]
    words = shlex.split(run["command"])
    words[words.index("-o") + 1] = str(tmp_path / "again")
    assert main([*words[1:], "--plain"]) == 0
    first, again = open_run(tmp_path / "r" / run["run"]).model, open_run(tmp_path / "again").model
    for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_data_on_disk_gives_the_figures_of_the_same_data_in_memory(tmp_path):
    x = np.random.default_rng(0).normal(size=(300, 2))
    np.save(tmp_path / "x.npy", x)
    found = []
    for name, in_memory in (("a", True), ("b", False)):
        options = {"in_memory": in_memory}
        wanted = asked(data=str(tmp_path / "x.npy"), data_options=options, models=("gaussian-mixture",))
        contest = Contest(tmp_path / name, wanted)
        assert isinstance(contest.data.train.examples, torch.Tensor) == in_memory
        found.append((contest.bench.digest, contest.run()["contestants"][0]["runs"][0]))
    (first, ours), (second, theirs) = found
    assert first == second
    costs = {"seconds", "sampling"}
    assert set(ours["figures"]) == set(theirs["figures"])
    for what in set(ours["figures"]) - costs:
        assert ours["figures"][what] == theirs["figures"][what]


# --- runs that exist already ------------------------------------------------------------------------------------------


def test_a_report_of_runs_says_of_them_what_the_contest_said(results, contest, tmp_path, capsys):
    paths = [str(contest / by_name(results)[n]["runs"][0]["run"]) for n in ("gaussian-mixture", "vae")]
    assert main(["report", *paths, "-o", str(tmp_path / "page"), "--plain"]) == 0
    found = by_name(json.loads((tmp_path / "page/results.json").read_text()))
    ours, theirs = (
        by_name(r)["gaussian-mixture"]["runs"][0]
        for r in (json.loads((contest / "results.json").read_text()), {"contestants": found.values()})
    )
    for key in ("likelihood", "auroc"):
        assert ours["figures"][key] == theirs["figures"][key]
    assert (tmp_path / "page" / theirs["run"] / "pictures").is_dir()
    assert "gaussian-mixture" in capsys.readouterr().out


def test_a_run_with_a_condition_is_measured_as_it_is_evaluated(tmp_path, call_json):
    words = ["fit", table(tmp_path / "t.csv"), "vae", "--given", "label", "--steps", "20", "--plain"]
    assert main([*words, "-o", str(tmp_path / "vae")]) == 0
    assert main(["report", str(tmp_path / "vae"), "-o", str(tmp_path / "page"), "--plain"]) == 0
    (found,) = json.loads((tmp_path / "page/results.json").read_text())["contestants"]
    run = found["runs"][0]
    assert {"likelihood", "fid", "auroc", "probe", "calibration"} <= set(run["figures"])
    assert {"reconstructions", "samples"} <= set(run["pictures"])
    for key in ("likelihood", "fid"):
        assert figures_again(call_json, run["commands"][key])[key] == run["figures"][key]
    assert "--given label" in run["command"]
    assert "--model.given" not in run["command"]
    np.savetxt(tmp_path / "o.csv", np.full((9, 2), 50.0), delimiter=",", header="a,b", comments="")
    far = ["--anomalies", str(tmp_path / "o.csv")]
    assert main(["report", str(tmp_path / "vae"), *far, "-o", str(tmp_path / "far"), "--plain"]) == 0
    (found,) = json.loads((tmp_path / "far/results.json").read_text())["contestants"]
    assert found["runs"][0]["figures"]["auroc"]["value"] == 1.0  # of both without a condition


def test_runs_of_other_data_are_not_compared(contest, tmp_path, call_error):
    assert main(["fit", "rings", "histogram", "-o", str(tmp_path / "h"), "--n", "50", "--plain"]) == 0
    ours = str(contest / "runs/gaussian-mixture-0")
    said = call_error("report", ours, str(tmp_path / "h"), "-o", str(tmp_path / "page"))
    assert "is of moons --n 300 and" in said
    assert "only runs of the same data" in said
    assert not (tmp_path / "page").exists()
    assert "named twice" in call_error("report", ours, ours, "-o", str(tmp_path / "page"))
    assert "is a comparison" in call_error("report", ours, "-o", str(contest))


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_shows_every_contestant_and_ends_with_the_page(tmp_path, capsys):
    out = tmp_path / "r"
    words = ["compare", "moons", "--n", "300", "--minutes", str(MINUTES), "--models", "histogram,gan", "-o", str(out)]
    assert main(words) == 0
    said = capsys.readouterr()
    for name in ("histogram", "gan"):
        assert re.search(rf"^{name} .*✓ done", said.err, re.M)
        assert re.search(rf"^{name}  ", said.out, re.M)
    assert f"page: {out / 'index.html'}" in said.out
    assert main(["compare", "-o", str(out)]) == 0  # going on needs no more words
    assert main(words) == 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["moons"], "there is no folder"),
        (["-o", "OUT"], "there is no comparison in"),
        (["moonz", "-o", "OUT"], "did you mean 'moons'"),
        (["moons", "--minutes", "0", "-o", "OUT"], "--minutes=0.0 should be above 0"),
        (["moons", "--minutes", "nan", "-o", "OUT"], "--minutes=nan should be above 0"),
        (["moons", "--seeds", "0", "-o", "OUT"], "--seeds=0 should be from 1"),
        (["moons", "--models", "mad", "-o", "OUT"], "did you mean 'made'"),
        (["moons", "--models", ",", "-o", "OUT"], "names no model"),
        (["moons", "--models", "pixelcnn", "-o", "OUT"], "takes images only"),
        (["moons", "--anomalies", "nowhere.csv", "-o", "OUT"], "there is no data set, file or folder"),
        (["moons", "--anomalies", "class:7", "-o", "OUT"], "has no class '7'"),
        (["markov", "--anomalies", "class:7", "-o", "OUT"], "no labels"),
        (["moons", "--minute", "1", "-o", "OUT"], "did you mean '--minutes'"),
        (["--minutes", "1", "-o", "OUT"], "there is no DATA"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing_behind(tmp_path, call_error, words, expected):
    out = tmp_path / "out"
    said = call_error("compare", *(str(out) if w == "OUT" else w for w in words))
    assert expected in said
    assert not out.exists()


def test_a_folder_with_something_else_is_left_alone(tmp_path, call_error):
    (tmp_path / "letters.txt").write_text("dear")
    assert "has other files" in call_error("compare", "moons", "-o", str(tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["letters.txt"]
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/contest.json").write_text("{")
    assert "is damaged" in call_error("compare", "-o", str(tmp_path / "broken"))


@pytest.fixture
def call_json(capsys):
    def call(*words):
        capsys.readouterr()
        assert main(list(words)) == 0
        return json.loads(capsys.readouterr().out)

    return call


@pytest.fixture
def call_error(capsys):
    def call(*words):
        capsys.readouterr()
        assert main(list(words)) == 2
        err = capsys.readouterr().err
        assert "Traceback" not in err
        return err

    return call


def test_nan_never_reaches_the_records(results):
    def numbers(value):
        if isinstance(value, dict):
            for v in value.values():
                yield from numbers(v)
        elif isinstance(value, list):
            for v in value:
                yield from numbers(v)
        elif isinstance(value, float):
            yield value

    assert all(math.isfinite(v) for v in numbers(results))


# --- trouble ----------------------------------------------------------------------------------------------------------


def a_table(path, rows, *, seed=0):
    values = np.random.default_rng(seed).normal(size=(rows, 3))
    path.write_text("\n".join(",".join(f"{v:.6f}" for v in row) for row in values))
    return str(path)


def test_data_that_has_changed_is_not_mixed_with_what_was_measured(tmp_path, call_error):
    table = a_table(tmp_path / "t.csv", 60)
    words = ["compare", table, "--minutes", "0.02", "--models", "histogram", "-o", str(tmp_path / "r")]
    assert main(words) == 0
    a_table(tmp_path / "t.csv", 60, seed=1)
    assert "was started: its examples, or names of its classes or columns, differ; restore it" in call_error(*words)
    a_table(tmp_path / "t.csv", 60)
    assert main(words) == 0


def test_a_report_leaves_what_a_contest_measured_as_it_is(tmp_path):
    Contest(tmp_path / "r", asked(models=("histogram",))).run()
    run = tmp_path / "r/runs/histogram-0"
    before = {p.name: p.read_bytes() for p in run.glob("*.*") if p.is_file()}
    assert main(["report", f"{run}/", "-o", str(tmp_path / "page"), "--plain"]) == 0
    assert {p.name: p.read_bytes() for p in run.glob("*.*") if p.is_file()} == before


def test_scores_that_are_lost_are_made_again(tmp_path):
    first = Contest(tmp_path / "r", asked(models=("histogram",))).run()
    (tmp_path / "r/runs/histogram-0/scores.npz").unlink()
    again = Contest(tmp_path / "r", None).run()
    assert again["places"]["likelihood"] == first["places"]["likelihood"]


@pytest.fixture
def measured_with(monkeypatch):
    """Scores of test examples are what a function makes of them; validation stays as it is."""

    def change(function):
        whole = Exam.log_probs

        def log_probs(self, x, **settings):
            found = whole(self, x, **settings)
            return function(found) if self.m.split == "test" else found

        monkeypatch.setattr(Exam, "log_probs", log_probs)
        return lambda: monkeypatch.setattr(Exam, "log_probs", whole)

    return change


def test_measuring_that_failed_is_tried_again_and_training_is_not(tmp_path, measured_with):
    def broken(scores):
        raise MemoryError("no room")

    mend = measured_with(broken)
    (failed,) = Contest(tmp_path / "r", asked(models=("histogram",))).run()["contestants"]
    assert (failed["status"], failed["reason"]) == ("failed", "MemoryError: no room")
    mend()
    kept = (tmp_path / "r/runs/histogram-0/checkpoints/best.safetensors").stat().st_mtime_ns
    (mended,) = Contest(tmp_path / "r", None).run()["contestants"]
    assert mended["status"] == "done"
    assert (tmp_path / "r/runs/histogram-0/checkpoints/best.safetensors").stat().st_mtime_ns == kept


def test_mass_of_zero_is_said_and_the_records_stay_json(tmp_path, measured_with):
    def unseen(scores):
        scores[0] = -torch.inf
        return scores

    measured_with(unseen)
    Contest(tmp_path / "r", asked(models=("histogram",))).run()

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    results = json.loads((tmp_path / "r/results.json").read_text(), parse_constant=refuse)
    run = results["contestants"][0]["runs"][0]
    assert "likelihood" not in run["figures"]
    assert "1 of 30 test examples have a log-likelihood of −∞" in run["missing"]["likelihood"]


def test_other_pictures_and_tables_are_read_as_the_data_was(tmp_path):
    for name, side in (("a", 80), ("b", 90)):
        (tmp_path / name).mkdir()
        for i in range(24):
            Image.fromarray(np.full((side, side), i * 9, np.uint8)).save(tmp_path / name / f"{i}.png")
    wanted = asked(data=str(tmp_path / "a"), data_options={}, models=("histogram",), anomalies=str(tmp_path / "b"))
    assert Contest(tmp_path / "r", wanted).bench.anomalies.shape == (24, 1, 32, 32)
    for name in ("t", "o"):
        lines = "".join(f"{i}.5,{i % 7}.25,k{i % 2}\n" for i in range(40))
        (tmp_path / f"{name}.csv").write_text("x,y,kind\n" + lines)
    table, other = str(tmp_path / "t.csv"), str(tmp_path / "o.csv")
    wanted = asked(data=table, data_options={"label": "kind"}, models=("histogram",), anomalies=other)
    assert Contest(tmp_path / "s", wanted).bench.anomalies.shape == (40, 2)


def test_a_contest_can_be_gone_on_with_from_another_folder(tmp_path, monkeypatch):
    table = a_table(tmp_path / "t.csv", 60)
    a_table(tmp_path / "odd.csv", 30, seed=1)
    monkeypatch.chdir(tmp_path)
    words = ["--minutes", "0.02", "--models", "histogram", "--anomalies", "odd.csv"]
    assert main(["compare", table, *words, "-o", "r"]) == 0
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    assert main(["compare", "-o", "../r"]) == 0


def test_two_at_once_are_kept_apart(tmp_path, call_error):
    contest = Contest(tmp_path / "r", asked(models=("histogram",)))
    with held_alone(contest.folder, "unsup compare"):
        assert "another unsup compare (process" in call_error("compare", "-o", str(tmp_path / "r"))


def test_what_cannot_be_written_or_is_too_little_is_one_line(tmp_path, call_error):
    (tmp_path / "file").write_text("")
    words = ["--minutes", "0.02", "--models", "histogram"]
    assert "Not a directory" in call_error("compare", "moons", *words, "-o", str(tmp_path / "file/r"))
    few, out = a_table(tmp_path / "few.csv", 5), tmp_path / "s"
    said = call_error("compare", few, *words, "-o", str(out))
    assert "has 1 examples to measure on; a comparison needs two test" in said
    assert not out.exists()


def test_a_sampler_too_slow_to_be_judged_is_timed_on_few_draws_and_says_what_to_run(tmp_path, monkeypatch):
    from unsup.families.classical.histogram import Histogram

    draw = Histogram.sample

    def slow(self, n, **settings):
        time.sleep(0.7)
        return draw(self, n, **settings)

    monkeypatch.setattr(Histogram, "sample", slow)
    run = Contest(tmp_path / "r", asked(models=("histogram",))).run()["contestants"][0]["runs"][0]
    assert run["figures"]["sampling"]["n"] == 4
    assert run["figures"]["sampling"]["value"] < 4 / 0.7
    assert "unsup eval" in run["missing"]["fid"]
    assert "samples" in run["pictures"]
    assert "likelihood" in run["figures"]


def test_a_purpose_orders_what_is_said_and_may_be_changed_afterwards(tmp_path, capsys):
    out = tmp_path / "r"
    words = ["compare", "moons", "--n", "300", "--minutes", str(MINUTES), "--models", "histogram,gaussian-mixture"]
    assert main([*words, "--for", "features", "-o", str(out)]) == 0
    first = json.loads((out / "results.json").read_text())
    assert first["for"] == json.loads((out / "contest.json").read_text())["for"] == "features"
    assert first["summary"][0].startswith("The features of gaussian-mixture")
    assert first["next"][0]["command"].startswith(
        f"unsup encode {os.path.normpath(out / 'runs/gaussian-mixture-0')} FILE"
    )
    assert "--for features" in first["command"]
    kept = {p: p.stat().st_mtime_ns for p in out.glob("runs/*/*.json")}
    assert main(["compare", "-o", str(out), "--for", "samples"]) == 0
    again = json.loads((out / "results.json").read_text())
    assert again["for"] == "samples"
    assert "FID" in again["summary"][0]
    assert again["next"][0]["command"].startswith("unsup sample")
    assert kept == {p: p.stat().st_mtime_ns for p in out.glob("runs/*/*.json")}
    assert main(["compare", "-o", str(out)]) == 0  # what is not said again stays
    assert json.loads((out / "results.json").read_text())["for"] == "samples"
    runs = [str(out / "runs/histogram-0"), str(out / "runs/gaussian-mixture-0")]
    assert main(["report", *runs, "--for", "density", "-o", str(tmp_path / "page"), "--plain"]) == 0
    assert json.loads((tmp_path / "page/results.json").read_text())["for"] == "density"
    capsys.readouterr()
    assert main(["compare", "moons", "--for", "beauty", "-o", str(tmp_path / "s")]) == 2
    assert "invalid choice: 'beauty'" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("stage", ["training", "measuring"])
def test_the_exit_status_tells_the_signal_that_stopped_a_contest(tmp_path, monkeypatch, capsys, request, number, stage):
    import unsup.contest.contest as module

    name = "fit" if stage == "training" else "measures_of"
    whole = getattr(module, name)

    def signalled(*args, **kwargs):
        if stage == "training":
            kwargs["progress"] = lambda snapshot: os.kill(os.getpid(), number)
        else:
            os.kill(os.getpid(), number)
        return whole(*args, **kwargs)

    monkeypatch.setattr(module, name, signalled)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # workers of a parallel test run ignore it
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    words = ["compare", "moons", "--n", "300", "--minutes", "1", "--models", "vae", "-o", str(tmp_path / "r")]
    assert (
        main([*words, "--plain"] if stage == "training" else [*words, "--plain", "--minutes", "0.02"]) == 128 + number
    )
    assert "stopped and saved; resume with:  unsup compare -o" in capsys.readouterr().out
    monkeypatch.setattr(module, name, whole)


def test_folders_that_look_like_options_and_changed_data_are_in_the_commands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = a_table(tmp_path / "t.csv", 60)
    words = ["--minutes", "0.02", "--models", "histogram", "-o", "./-odd"]
    assert main(["compare", table, *words]) == 0
    results = json.loads((tmp_path / "-odd/results.json").read_text())
    run = results["contestants"][0]["runs"][0]
    commands = [results["command"], run["command"], *run["commands"].values(), *(n["command"] for n in results["next"])]
    for command in commands:
        assert "./-odd" in command
        assert "--changed-data" not in command
    assert main(shlex.split(run["commands"]["likelihood"])[1:]) == 0
    a_table(tmp_path / "t.csv", 60, seed=1)
    assert main(["compare", table, *words, "--changed-data"]) == 0
    results = json.loads((tmp_path / "-odd/results.json").read_text())
    run = results["contestants"][0]["runs"][0]
    for command in (results["command"], run["commands"]["likelihood"]):
        assert "--changed-data" in command
    assert main(shlex.split(run["commands"]["likelihood"])[1:]) == 0


def test_lost_parameters_of_a_run_are_noted(tmp_path):
    Contest(tmp_path / "r", asked(models=("histogram",))).run()
    run = open_run(tmp_path / "r/runs/histogram-0")
    run.append_event({"step": 1, "seconds": 0.0, "lost": "the best parameters, of pass 1"})
    (run.path / "measures.json").unlink()
    found = Contest(tmp_path / "r", None).run()["contestants"][0]["runs"][0]
    assert "a stopped run was resumed after it had lost the best parameters, of pass 1" in found["notes"]
