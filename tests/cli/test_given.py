"""The story of conditions: fit on classes, on columns of a table and on pictures, then every verb given something."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

import unsup
from unsup.cli.main import main

pytestmark = pytest.mark.usefixtures("own_models")
CENTRES = {"ant": (0.0, 0.0), "bee": (4.0, 0.0), "cow": (0.0, 4.0)}


@pytest.fixture(scope="module")
def story(tmp_path_factory, own_models):
    """A table of three kinds of points with a run given the kind, and one of a sum given its summands."""
    folder = tmp_path_factory.mktemp("given")
    rng = np.random.default_rng(0)
    lines = ["u,v,kind"]
    for i in range(300):
        kind = list(CENTRES)[i % 3]
        u, v = rng.normal(CENTRES[kind], 0.5)
        lines.append(f"{u:.4f},{v:.4f},{kind}")
    (folder / "kinds.csv").write_text("\n".join(lines) + "\n")
    a, b = rng.normal(size=(2, 200))
    rows = np.stack([a, b, a + b + 0.01 * rng.normal(size=200)], 1)
    np.savetxt(folder / "sums.csv", rows, delimiter=",", header="a,b,sum", comments="", fmt="%.5f")
    fit = ["--steps", "3", "--lr", "1e-6", "--plain"]
    kinds = ["fit", str(folder / "kinds.csv"), "blobs", "--given", "label", "-o", str(folder / "blobs"), *fit]
    sums = ["fit", "--given", "a", "b", str(folder / "sums.csv"), "follower", "-o", str(folder / "sum"), *fit]
    assert main(kinds) == 0
    assert main(sums) == 0
    return folder


def one_line(called, *expected):
    assert called.status == 2, called
    assert called.err.count("\n") == 1, called.err
    for words in expected:
        assert words in called.err, called.err


def table(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_the_model_is_built_for_the_condition_of_the_data(story):
    run = unsup.open_run(story / "blobs")
    assert run.model.given == run.data.given
    assert run.model.classes == 3
    assert unsup.open_run(story / "sum").model.given.shape == (2,)


def test_samples_of_a_class_by_name_or_number_lie_where_the_class_does(call, story, tmp_path):
    out = tmp_path / "x.npy"
    for words in (["--given", "cow"], ["--given", 2]):
        assert call("sample", *words, story / "blobs", "-n", 50, "-o", out).status == 0
        assert np.load(out).mean(0) == pytest.approx(CENTRES["cow"], abs=0.4)
    assert call("sample", story / "blobs", "--given", "bee", "ant", "-n", 5, "-o", out).status == 0
    x = np.load(out)
    assert (x[:5, 0] > 2).all()
    assert (x[5:, 0] < 2).all()
    assert call("sample", story / "blobs", "-n", 300, "-o", out).status == 0
    assert np.load(out).mean(0) == pytest.approx((4 / 3, 4 / 3), abs=0.4)  # every class, as often as in the data


def test_knobs_of_sampling_are_flags(call, story, tmp_path):
    out = tmp_path / "x.npy"
    cold = ["--sample.temperature", 0.001, "--sample.shift", 1, -1e1]
    assert call("sample", *cold, story / "blobs", "--given", "ant", "-n", 9, "-o", out).status == 0
    mean = unsup.load(story / "blobs").mean[0].numpy()
    assert np.load(out) == pytest.approx(np.broadcast_to(mean + np.array([1, -10]), (9, 2)), abs=0.01)
    listed = call("sample", story / "blobs", "--help").out
    assert "--sample.temperature X" in listed
    assert "of the noise; below 1 is nearer the means [1.0]" in " ".join(listed.split())
    assert "--sample" in call("sample", "--help").out


def test_numbers_condition_a_model_of_columns(call, story, tmp_path):
    out = tmp_path / "x.npy"
    assert call("sample", "--given", -1.5, 2, story / "sum", "-n", 4, "-o", out).status == 0
    assert np.load(out) == pytest.approx(np.full((4, 1), 0.5), abs=0.1)
    np.save(tmp_path / "c.npy", np.array([[1.0, 1.0], [0.5, -3.0]]))
    assert call("sample", story / "sum", "--given", tmp_path / "c.npy", "-o", out).status == 0
    assert np.load(out) == pytest.approx(np.array([[2.0], [-2.5]]), abs=0.1)
    assert call("sample", story / "sum", "--given", tmp_path / "c.npy", "-n", 2, "-o", out).status == 0
    assert np.load(out) == pytest.approx(np.array([[2.0], [2.0], [-2.5], [-2.5]]), abs=0.1)


def test_pictures_condition_a_model_of_pictures(call, tmp_path):
    rng = np.random.default_rng(0)
    for i in range(12):
        for name in ("x", "c"):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (2, 2), dtype=np.uint8)).save(tmp_path / name / f"{i}.png")
    words = [
        "fit",
        tmp_path / "x",
        "--given",
        tmp_path / "c",
        "follower",
        "-o",
        tmp_path / "r",
        "--steps",
        1,
        "--plain",
    ]
    done = call(*words)
    assert done.status == 0, done.err
    assert call("sample", tmp_path / "r", "--given", tmp_path / "c", "-o", tmp_path / "x.npy").status == 0
    assert np.load(tmp_path / "x.npy").shape == (12, 1, 2, 2)
    one = tmp_path / "c" / "3.png"
    assert call("sample", tmp_path / "r", "--given", one, "-n", 3, "-o", tmp_path / "x.npy").status == 0
    assert len(np.load(tmp_path / "x.npy")) == 3
    one_line(call("sample", tmp_path / "r", "-o", tmp_path / "x.npy"), "pass the condition with --given PATH")


def test_eval_takes_the_conditions_of_the_split(call, story):
    found = json.loads(call("eval", story / "blobs", "--json").out)["figures"]["likelihood"]
    run = unsup.open_run(story / "blobs")
    test = run.data.test
    with torch.no_grad():
        own = -run.model.log_prob(test.x, given=test.given).double().mean()
        marginal = -run.model.log_prob(test.x).double().mean()
    assert found["value"] == pytest.approx(float(own), rel=1e-6)
    assert float(marginal) > float(own) + 0.5  # log 3 is what the class tells
    assert "p(x | c)" in call("eval", story / "blobs").out
    judged = json.loads(call("eval", story / "sum", "--samples", 50, "--json").out)["figures"]
    assert judged["fid"]["detail"]["fake"] == 50


def test_score_takes_conditions_from_the_file_or_from_the_command_line(call, story, tmp_path):
    model = unsup.load(story / "blobs")
    (tmp_path / "known.csv").write_text("u,v,kind\n4.1,0.2,bee\n0.3,3.9,cow\n")
    (tmp_path / "bare.csv").write_text("u,v\n4.1,0.2\n0.3,3.9\n")
    x = torch.tensor([[4.1, 0.2], [0.3, 3.9]])

    def scores(*words):
        assert call("score", story / "blobs", *words, "-o", tmp_path / "s.csv").status == 0
        return [float(r["log_prob_nats"]) for r in table(tmp_path / "s.csv")]

    with torch.no_grad():
        own = model.log_prob(x, given=torch.tensor([1, 2])).tolist()
        first = model.log_prob(x, given=torch.tensor(0)).tolist()
        none = model.log_prob(x).tolist()
    assert scores(tmp_path / "known.csv") == pytest.approx(own, abs=1e-3)
    assert scores(tmp_path / "bare.csv") == pytest.approx(none, abs=1e-3)
    assert scores("--given", "ant", tmp_path / "bare.csv") == pytest.approx(first, abs=1e-3)
    assert scores(tmp_path / "known.csv", "--given", "ant") == pytest.approx(first, abs=1e-3)
    (tmp_path / "sums.csv").write_text("a,b,sum\n1,2,3\n1,2,0\n")
    assert call("score", story / "sum", tmp_path / "sums.csv", "-o", tmp_path / "s.csv").status == 0
    near, far = (float(r["log_prob_nats"]) for r in table(tmp_path / "s.csv"))
    assert near > far + 100
    (tmp_path / "alone.csv").write_text("sum\n3\n0\n")
    one_line(call("score", story / "sum", tmp_path / "alone.csv"), "sum")
    assert call("score", story / "sum", tmp_path / "alone.csv", "--given", 1, 2, "-o", tmp_path / "t.csv").status == 0
    assert [r["log_prob_nats"] for r in table(tmp_path / "t.csv")] == [
        r["log_prob_nats"] for r in table(tmp_path / "s.csv")
    ]


def test_codes_remember_what_they_were_encoded_given(call, story, tmp_path):
    data = story / "kinds.csv"
    assert call("encode", story / "blobs", data, "-o", tmp_path / "z.npz").status == 0
    assert call("decode", story / "blobs", tmp_path / "z.npz", "-o", tmp_path / "x.npy").status == 0
    original = np.loadtxt(data, delimiter=",", skiprows=1, usecols=(0, 1))
    assert np.load(tmp_path / "x.npy") == pytest.approx(original, abs=1e-4)
    codes = np.load(tmp_path / "z.npz")["z"]
    assert np.abs(codes).max() < 6  # of each class's own blob
    words = ["decode", story / "blobs", tmp_path / "z.npz", "--given", "bee", "-o", tmp_path / "y.npy"]
    assert call(*words).status == 0
    model = unsup.load(story / "blobs")
    with torch.no_grad():
        moved = model.decode(torch.from_numpy(codes), given=torch.tensor(1)).numpy()
    assert np.load(tmp_path / "y.npy") == pytest.approx(moved, abs=1e-5)


def test_predict_tells_classes_by_name_the_likeliest_first(call, story, tmp_path):
    (tmp_path / "bare.csv").write_text("u,v\n4.1,0.2\n0.3,3.9\n2.0,0.0\n")
    assert call("predict", story / "blobs", tmp_path / "bare.csv", "-o", tmp_path / "p.csv").status == 0
    rows = table(tmp_path / "p.csv")
    assert list(rows[0]) == ["example", "class", "p(ant)", "p(bee)", "p(cow)"]
    assert [r["class"] for r in rows[:2]] == ["bee", "cow"]
    model = unsup.load(story / "blobs")
    with torch.no_grad():
        expected = model.predict_proba(torch.tensor([[4.1, 0.2], [0.3, 3.9], [2.0, 0.0]]))
    found = torch.tensor([[float(r[f"p({c})"]) for c in CENTRES] for r in rows])
    assert torch.allclose(found, expected.to(found.dtype), atol=1e-4)
    assert call("predict", story / "blobs", tmp_path / "bare.csv").out.count("\n") == 4


def test_bad_conditions_are_told_in_one_line(call, story, runs, tmp_path):
    out = ("-o", tmp_path / "x.npy")
    one_line(call("sample", story / "blobs", "--given", "kow", *out), "'cow'")
    one_line(call("sample", story / "blobs", "--given", 3, *out), "0 to 2")
    one_line(call("sample", story / "sum", *out), "--given X X")
    one_line(call("sample", story / "sum", "--given", 1, *out), "expected X X")
    one_line(call("sample", story / "sum", "--given", 1, "nan", *out), "finite")
    one_line(call("sample", story / "sum", "--given", tmp_path / "gone.csv", *out), "gone.csv")
    one_line(call("sample", runs / "made", "--given", 3, *out), "made does not support conditions", "blobs")
    one_line(call("score", runs / "made", "digits", "--given", 3), "made does not support conditions")
    one_line(call("predict", runs / "made", "digits"), "blobs")
    fit = ("--steps", 1, "--plain", "-o", tmp_path / "r")
    one_line(
        call("fit", "digits", "made", "--given", "label", *fit), "made does not support conditions", "remove --given"
    )
    one_line(call("fit", story / "sums.csv", "blobs", "--given", "c", *fit), "'c'")
    assert call("fit", "moons", "blobs", "--n", 50, *fit).status == 0
    one_line(call("sample", tmp_path / "r", "--given", 1, *out), "trained without a condition", "--given label")
    one_line(call("predict", tmp_path / "r", "moons"), "without classes")
