"""``unsup probe``, ``map`` and ``neighbours``: figures with their floors, pages, pictures, and bad input."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import unsup
from unsup.cli.main import main
from unsup.core.errors import TrainingError
from unsup.core.storage import load_tensors, save_tensors
from unsup.evaluate.measures import MEASURES
from unsup.evaluate.probe import encode_all
from unsup.pictures.gallery import Drawn

KEYS = [key for key, row in MEASURES.items() if row.purpose == "features"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Runs of a VAE on digits, of a mixture on a table with classes and words, and of a model without codes."""
    folder, rng = tmp_path_factory.mktemp("encoded"), np.random.default_rng(0)
    kinds = rng.integers(0, 3, 300)
    rows = [f"{rng.normal(k):.2f},{rng.normal(-k):.2f},{('red', 'green', '<b>')[k]},{'xyz'[k]}" for k in kinds.tolist()]
    (folder / "table.csv").write_text("\n".join(["a,b,colour,kind", *rows]) + "\n")
    short = ["--plain", "--steps", "20", "--preset", "tiny"]
    assert main(["fit", "digits", "vae", "-o", f"{folder}/vae", "--limit", "300", *short]) == 0
    table = f"{folder}/table.csv"
    assert main(["fit", table, "gaussian-mixture", "--label", "kind", "-o", f"{folder}/table", "--plain"]) == 0
    assert main(["fit", "digits", "made", "-o", f"{folder}/made", "--limit", "100", *short]) == 0
    return folder


# --- probe ------------------------------------------------------------------------------------------------------------


def test_probe_prints_each_measure_beside_an_untrained_encoder_and_raw_data(call, folder, tmp_path):
    page = tmp_path / "page.html"
    found = call("probe", folder / "vae", "--examples", 100, "-o", page)
    assert found.status == 0, found.err
    record = json.loads(call("probe", folder / "vae", "--examples", 100, "--json").out)
    assert list(record["figures"]) == KEYS
    for key in KEYS:
        row, figure = MEASURES[key], record["figures"][key]
        found_beside = (figure["value"], figure["detail"].get("untrained"), figure["floor"])
        beside = [row.show(v) for v in found_beside if v is not None]
        line = next(text for text in found.out.splitlines() if text.startswith(row.title))
        assert [w for w in line.split() if w in beside] == beside or len(set(beside)) < len(beside)
        assert row.title[1:] in page.read_text()
    assert "k = 20, T = 0.07" in found.out
    assert record["encoder"]["parameters_sha256"][:16] in found.out
    assert "data:image/png;base64," in page.read_text()
    assert "A linear projection that shows" in page.read_text()


def test_the_default_of_ten_labels_takes_all_of_a_smaller_class_and_says_so(call, folder):
    words = ("probe", folder / "vae", "digits", "--limit", 90)
    label = unsup.load_data("digits", limit=90).train.label
    least = int(label.bincount().min())
    assert least < 10
    assert f"few labels: at most 10 labels per class (the smallest class has {least}), the mean" in call(*words).out
    assert call(*words, "--labels", 10).status == 2
    assert f"few labels: {least} labels per class, the mean" in call(*words, "--labels", least).out


def test_a_model_of_codes_alone_is_referred_to_the_probe(call, tmp_path):
    np.save(tmp_path / "x.npy", unsup.load_data("digits").test.x[:60].numpy())
    for data, command in (
        ("digits", "unsup probe {run}"),
        (tmp_path / "x.npy", "--measures uniformity,effective_rank"),
    ):
        run = tmp_path / Path(data).stem
        assert call("fit", data, "simclr", "-o", run, "--plain", "--steps", 1, "--preset", "tiny").status == 0
        assert call("eval", run).err.strip().endswith(command.format(run=run))
    assert "no reconstruction error: simclr does not decode\n" in call("probe", tmp_path / "digits").out
    digits = unsup.load_data("digits")
    flow = MEASURES["reconstruction"].reason_against(unsup.create("nice", digits.event, preset="tiny"), digits, "nice")
    assert flow == "nice is invertible: it restores every example"


def test_a_page_of_two_examples_has_no_map_and_their_figures_are_kept(call, folder, tmp_path):
    page = tmp_path / "page.html"
    found = call("probe", folder / "vae", "--examples", 2, "--seed", 7, "-o", page)
    assert (found.status, found.err) == (0, "")
    assert "a map needs 3 or more" in page.read_text()
    assert "data:image/png;base64," not in page.read_text()
    kept = json.loads((folder / "vae" / "eval.json").read_text())["results"]
    assert {e["measure"] for e in kept if e["settings"].get("seed") == 7} == set(KEYS)


def test_the_figures_are_kept_if_the_page_cannot_be_written(call, folder, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise TrainingError("the disk is full")

    monkeypatch.setattr("unsup.report.probe.probe_page", full)
    assert call("probe", folder / "vae", "--examples", 20, "--seed", 8, "-o", tmp_path / "page.html").status == 1
    kept = json.loads((folder / "vae" / "eval.json").read_text())["results"]
    assert {e["measure"] for e in kept if e["settings"].get("seed") == 8} == set(KEYS)


def test_the_most_frequent_training_class_is_named(call, folder, tmp_path):
    """Its share is that of the test examples, in which it is rare."""
    digits = unsup.load_data("digits")
    label = np.where(np.arange(len(digits.test)) % 10 < 7, 4, 1)
    np.savez(tmp_path / "own.npz", x=digits.test.x.numpy(), label=label)
    own = unsup.load_data(str(tmp_path / "own.npz"))
    share = float((own.test.label == own.train.label.bincount().argmax()).double().mean())
    name = own.labels[1] if own.labels else "4"
    assert (
        f"always the most frequent training class ({name}): {share:.1%}"
        in call("probe", folder / "vae", tmp_path / "own.npz").out
    )


def test_its_figures_are_those_of_eval_and_are_kept(call, folder):
    assert call("probe", folder / "vae", "--labels", 3).status == 0
    own = json.loads(call("eval", folder / "vae", "--measures", ",".join(KEYS), "--labels", 3, "--json").out)
    probed = json.loads(call("probe", folder / "vae", "--labels", 3, "--json").out)
    assert own["figures"] == probed["figures"]
    kept = json.loads((folder / "vae" / "eval.json").read_text())["results"]
    mine = [e for e in kept if e["measure"] == "few_labels" and e["settings"].get("labels") == 3]
    assert [e["figure"]["value"] for e in mine] == [own["figures"]["few_labels"]["value"]]
    assert re.search(r"\d % untrained encoder|\d% untrained encoder", (folder / "vae" / "report.html").read_text())


def test_other_data_of_the_same_kind_is_probed_and_not_kept(call, folder, tmp_path):
    digits = unsup.load_data("digits")
    path = tmp_path / "own.npz"
    np.savez(path, x=digits.test.x.numpy(), label=(digits.test.label > 4).long().numpy())
    before = (folder / "vae" / "eval.json").read_text() if (folder / "vae" / "eval.json").exists() else ""
    found = call("probe", folder / "vae", path)
    assert found.status == 0, found.err
    assert "own.npz" in found.out
    after = (folder / "vae" / "eval.json").read_text() if (folder / "vae" / "eval.json").exists() else ""
    assert after == before


def test_fine_tuning_is_shown_beside_supervised_learning_and_leaves_the_run_alone(call, folder, tmp_path):
    weights = (folder / "vae" / "checkpoints" / "best.safetensors").read_bytes()
    words = ["probe", folder / "vae", "--fine-tune", "--minutes", 0.05, "--examples", 100, "-o", tmp_path / "page.html"]
    found = json.loads(call(*words, "--json").out)["fine_tuned"]
    assert 0.2 < found["value"] <= 1
    assert 0.2 < found["detail"]["untrained"] <= 1
    assert "Fine-tuned" in (tmp_path / "page.html").read_text()
    assert (folder / "vae" / "checkpoints" / "best.safetensors").read_bytes() == weights


def test_a_saved_model_is_probed_on_data(call, folder, tmp_path):
    unsup.load(str(folder / "vae")).save(str(tmp_path / "saved"))
    found = call("probe", tmp_path / "saved", "digits", "--limit", 200, "--examples", 100)
    assert found.status == 0, found.err
    assert "linear probe" in found.out
    alone = call("probe", tmp_path / "saved")
    assert alone.status == 2
    assert "saved model" in alone.err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("probe", "{f}/made"), "made has no codes"),
        (("map", "{f}/made", "-o", "{t}/m.png"), "made has no codes"),
        (("neighbours", "{f}/made", "digits"), "made has no codes"),
        (("probe", "{f}/vae", "{t}/one.npz"), "examples have the same class"),
        (("probe", "{f}/table", "{t}/one.csv", "--label", "kind"), "error: all .* have the same class, .*or more$"),
        (("probe", "{f}/vae", "{t}/none.npy"), "has no labels; pass labelled DATA"),
        (("probe", "{f}/vae", "{t}/few.npz"), "labelled training examples of"),
        (("probe", "{f}/vae", "moons"), "has examples of shape"),
        (("probe", "{f}/vae", "-o", "{t}/p.png"), "should end in .html"),
        (("map", "{f}/vae", "-o", "{t}/p.html"), "should end in .png"),
        (("neighbours", "{f}/vae", "digits", "-o", "{t}/p.png"), "should end in .html"),
        (("probe", "{f}/vae", "--limit", "3"), "--limit is an option of DATA"),
        (("probe", "{f}/vae", "--minutes", "1"), "--minutes is for --fine-tune"),
        (("probe", "{f}/vae", "--labels", "50"), "50 labels per class asked for, but class 2 has 23 training examples"),
        (("eval", "{f}/vae", "--measures", "probe,few_labels", "--labels", "50"), "but class 2 has 23 training ex"),
        (("probe", "{f}/vae", "--labels", "0"), "labels=0 should be at least 1|--labels=0 should be at least 1"),
    ],
)
def test_bad_input_is_one_line(call, folder, tmp_path, words, reason):
    x = unsup.load_data("digits").test.x[:30].numpy()
    np.savez(tmp_path / "one.npz", x=x, label=np.zeros(30, dtype=np.int64))
    np.savez(tmp_path / "few.npz", x=x, label=np.arange(30))
    np.save(tmp_path / "none.npy", x)
    head, *lines = (folder / "table.csv").read_text().splitlines()
    (tmp_path / "one.csv").write_text("\n".join([head, *(f"{line[:-1]}x" for line in lines)]) + "\n")
    found = call(*(word.format(f=folder, t=tmp_path) for word in words))
    assert found.status == 2
    last = found.err.strip().splitlines()[-1]
    assert last.startswith("unsup: error: ")
    assert re.search(reason, last), last


def test_an_unfinished_run_is_told_in_one_note(call, folder, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(folder / "vae", run)
    tensors, record = load_tensors(run / "checkpoints" / "last.safetensors")
    save_tensors(run / "checkpoints" / "last.safetensors", tensors, record | {"ended": None, "total": 2000})
    for words in (
        ("probe", run),
        ("map", run, "-o", tmp_path / "m.png"),
        ("neighbours", run, "digits"),
        ("encode", run, "digits", "-o", tmp_path / "z.csv"),
        ("eval", run, "--json"),
    ):
        found = call(*words)
        assert found.status == 0, found.err
        assert found.err.count("unsup: note: training is not finished: step 20 of 2,000; unsup fit --resume -o ") == 1
    assert "not finished" not in call("map", folder / "vae", "-o", tmp_path / "m.png").err


# --- map --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_a_map_is_a_picture_that_says_what_it_shows(call, folder, tmp_path, method):
    out = tmp_path / "map.png"
    found = call("map", folder / "vae", "-o", out, "--method", method, "--points", 80)
    assert found.status == 0, found.err
    assert "80 of 360 test examples" in found.out
    drawn = Drawn.read(out.read_bytes())
    assert {"pca": "A linear projection", "tsne": "mean nothing"}[method] in drawn.caption
    assert drawn.alt.endswith("a scatter plot of 80 points of 10 classes.")


def test_a_map_needs_no_labels(call, folder, tmp_path):
    x = unsup.load_data("digits").test.x.numpy()
    np.save(tmp_path / "x.npy", x)
    found = call("map", folder / "vae", tmp_path / "x.npy", "-o", tmp_path / "m.png", "--split", "train")
    assert found.status == 0, found.err
    assert "classes" not in found.out


# --- neighbours -------------------------------------------------------------------------------------------------------


def test_a_training_example_finds_itself(call, folder, tmp_path):
    """On the screen, and as pictures on the page."""
    x = unsup.load_data("digits", limit=300).train.x
    np.save(tmp_path / "mine.npy", x[[5, 17]].numpy())
    found = call("neighbours", folder / "vae", tmp_path / "mine.npy", "-n", 4, "-o", tmp_path / "page.html")
    assert found.status == 0, found.err
    label = unsup.load_data("digits", limit=300).train.label
    for i in (5, 17):
        assert f" {i} ({label[i]}) 0, " in found.out
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert "another model finds other neighbours" in page
    both = call("neighbours", folder / "vae", tmp_path / "mine.npy", "digits", "-n", 1)
    assert both.out.count("mine.npy: ") == 2
    assert "digits: " in both.out


def test_all_neighbours_are_printed_with_four_digits_of_their_distances(call, folder, tmp_path):
    """Beside 1 − cosine of the codes, by the definition."""
    digits, model = unsup.load_data("digits", limit=300), unsup.load(str(folder / "vae"))
    asked = digits.test.x[:1]
    np.save(tmp_path / "mine.npy", asked.numpy())
    found = call("neighbours", folder / "vae", tmp_path / "mine.npy", "-n", 8)
    assert found.status == 0, found.err
    told = re.findall(r"(\d+) \(\d\) ([\d.e-]+)", found.out)
    bank, one = (encode_all(model, x).double().numpy() for x in (digits.train.x, asked))
    distances = 1 - bank @ one[0] / np.linalg.norm(bank, axis=1) / np.linalg.norm(one)
    nearest = np.argsort(distances, kind="stable")[:8]
    assert [int(place) for place, _ in told] == nearest.tolist()
    np.testing.assert_allclose([float(distance) for _, distance in told], distances[nearest], rtol=6e-4, atol=1e-12)


@pytest.mark.parametrize("encodes", [True, False])
def test_neighbours_with_gaps_are_found_by_models_that_encode_them(call, folder, tmp_path, encodes, monkeypatch):
    """Numbers are those of the whole training split, also if some of it is left out."""
    head, *lines = (folder / "table.csv").read_text().splitlines()
    gappy = [line if i % 3 else f",{line.partition(',')[2]}" for i, line in enumerate(lines)]
    table, run = tmp_path / "gaps.csv", tmp_path / "run"
    table.write_text("\n".join([head, *gappy]) + "\n")
    words = ("fit", table, "gaussian-mixture", "--missing", "keep", "-o", run, "--plain")
    assert call(*words).status == 0
    train = unsup.load_data(str(table), missing="keep").train.x
    monkeypatch.setattr("unsup.evaluate.probe.can_encode", lambda *_: encodes)
    found = call("neighbours", run, table, "-n", 100)
    assert found.status == 0, found.err
    places = {int(place) for place in re.findall(r"(\d+) [\d.e-]+(?:,|$)", found.out, re.MULTILINE)}
    gaps = set(train.isnan().any(1).nonzero().flatten().tolist())
    assert max(places) < len(train)
    assert bool(places & gaps) == encodes
    assert (f"{len(gaps)} training examples with missing entries left out" in found.err) != encodes


def test_probe_counts_the_examples_that_it_leaves_out(call, folder, tmp_path):
    head, *lines = (folder / "table.csv").read_text().splitlines()
    gappy = [line if i % 3 else f",{line.partition(',')[2]}" for i, line in enumerate(lines)]
    table, run = tmp_path / "gaps.csv", tmp_path / "run"
    table.write_text("\n".join([head, *gappy]) + "\n")
    words = ("fit", table, "gaussian-mixture", "--label", "kind", "--missing", "keep", "-o", run, "--plain")
    assert call(*words).status == 0
    data = unsup.load_data(str(table), missing="keep", label="kind")
    found = call("probe", run)
    for which, split in (("training", data.train), ("held-out", data.test)):
        count = int(split.x.isnan().any(1).sum())
        assert f"note: {count} {which} examples with missing entries left out" in found.out


def test_rows_of_a_table_are_told_in_their_words_and_escaped(call, folder, tmp_path):
    lines = (folder / "table.csv").read_text().splitlines()
    odd = next(line for line in lines if "<b>" in line)
    (tmp_path / "mine.csv").write_text("\n".join([lines[0], odd]) + "\n")
    found = call("neighbours", folder / "table", tmp_path / "mine.csv", "-n", 3, "-o", tmp_path / "page.html")
    assert found.status == 0, found.err
    page = (tmp_path / "page.html").read_text()
    assert "colour = &lt;b&gt;" in page
    assert "<b>;" not in page
    assert page.count("your example") == 1
    assert re.search(r"\d+ \(z\)", page)


def test_text_is_told_as_text(call, tmp_path):
    text = tmp_path / "words.txt"
    text.write_text("the quick brown fox jumps over the lazy dog. " * 60)
    short = ["--plain", "--steps", "5", "--preset", "tiny", "--length", "24"]
    assert call("fit", text, "vae", "-o", tmp_path / "run", *short).status == 0
    found = call("neighbours", tmp_path / "run", text, "-n", 2, "-o", tmp_path / "page.html")
    assert found.status == 0, found.err
    assert "quick brown" in (tmp_path / "page.html").read_text()


def test_pictures_have_the_size_of_training(call, tmp_path: Path) -> None:
    """A run on resized pictures resizes those of the user in the same way; another size is refused."""
    rng = np.random.default_rng(0)
    for i in range(12):
        pixels = rng.integers(0, 256, (6 + i % 3, 9), dtype=np.uint8)
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.png")
    run, photos = tmp_path / "run", tmp_path / "photos"
    assert call("fit", photos, "vae", "-o", run, "--plain", "--steps", 2, "--preset", "tiny", "--resize", 4).status == 0
    for out, more in (("a.npz", ()), ("b.npz", ("--resize", 4))):
        done = call("encode", run, photos, "-o", tmp_path / out, *more)
        assert done.status == 0, done.err
    first, second = (np.load(tmp_path / name) for name in ("a.npz", "b.npz"))
    assert all(np.array_equal(first[key], second[key]) for key in first)
    assert call("neighbours", run, photos / "3.png", "-n", 1).status == 0
    assert call("score", run, photos, "-o", tmp_path / "s.csv").status == 0
    refused = call("encode", run, photos, "-o", tmp_path / "c.npz", "--resize", 5)
    assert refused.status == 2
    assert "use --resize 4" in refused.err
