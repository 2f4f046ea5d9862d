"""Data are part of a run: whatever reads the run's own data refuses data that have changed, or says that they have."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import unsup
from unsup.cli.main import main
from unsup.core.storage import load_tensors, save_tensors
from unsup.data import Data, Split, load_data
from unsup.data.recorded import digest_of
from unsup.train.runs import Run, open_run

SAID = "has changed since"
MEND = "--changed-data (changed_data=True)"


def refused(called: Any, *words: str) -> None:
    assert called.status == 2
    assert called.err.count("\n") == 1
    for word in (SAID, MEND, *words):
        assert word in called.err


def table(path: Path, rows: np.ndarray) -> None:
    path.write_text("a,b,kind\n" + "\n".join(f"{a!r},{b!r},{'uv'[int(a > 0)]}" for a, b in rows.tolist()))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a table, two runs on it and one on the codes of the first."""
    folder = tmp_path_factory.mktemp("story")
    table(folder / "t.csv", np.random.default_rng(0).normal(size=(200, 2)))
    words = ["--preset", "tiny", "--steps", "5", "--plain"]
    assert main(["fit", str(folder / "t.csv"), "vae", "-o", str(folder / "vae"), *words]) == 0
    assert main(["fit", str(folder / "t.csv"), "made", "-o", str(folder / "made"), *words]) == 0
    return folder


@pytest.fixture
def story(made: Path, tmp_path: Path) -> Path:
    """The runs of `made`, and the data where they look for it; both may be spoilt."""
    rows = np.random.default_rng(0).normal(size=(200, 2))
    table(made / "t.csv", rows)
    for name in ("vae", "made"):
        shutil.copytree(made / name, tmp_path / name)
    return tmp_path


def change(made: Path) -> None:
    """The first row is deleted."""
    table(made / "t.csv", np.random.default_rng(0).normal(size=(200, 2))[1:])


@pytest.mark.slow
def test_every_command_that_reads_the_data_of_a_run_refuses_other_data(story: Path, made: Path, call: Any) -> None:
    vae, second = story / "vae", story / "made"
    commands: list[tuple[object, ...]] = [
        ("eval", vae),
        ("eval", vae, "--samples", 20, "--extractor", "raw"),
        ("eval", vae, "--split", "train"),
        ("check", second),
        ("report", vae, second, "-o", story / "page", "--plain"),
        ("fit", f"codes:{vae}", "gaussian-mixture", "-o", story / "codes", "--plain"),
        ("data", f"codes:{vae}"),
        ("score", second, f"codes:{vae}"),
    ]
    change(made)
    for command in commands:
        refused(call(*command), str(made / "t.csv"))
    assert not (story / "codes").exists()
    for command in commands[:-1]:
        found = call(*command, "--changed-data")
        assert (found.status, SAID in found.err) == (0, False), (command, found.err)
    assert call("eval", vae).status == 2  # it has been said once, not for good
    # What reads no data of the run goes on without a word, as does a run that has finished.
    for command in (
        ("sample", vae, "-o", story / "s.npy"),
        ("score", vae, made / "t.csv"),
        ("fit", "--resume", "-o", vae, "--plain"),
    ):
        assert call(*command).status == 0


def test_figures_of_changed_data_say_so(story: Path, made: Path, call: Any) -> None:
    vae = story / "vae"

    def changed() -> dict[str, bool]:
        kept = json.loads((vae / "eval.json").read_text())["results"]
        return {e["measure"]: e["changed_data"] for e in kept}

    told = call("eval", vae).out
    assert "changed" not in told
    assert changed() == {"likelihood": False}
    assert call("eval", vae, "--changed-data").status == 0  # nothing has changed, and nothing is said
    assert changed() == {"likelihood": False}
    change(made)
    found = call("eval", vae, "--changed-data", "--samples", 20, "--extractor", "raw")
    assert "note: the data has changed since the run was trained" in found.out
    assert changed()["fid"]
    assert not changed()["likelihood"]  # that was made before
    found = call("eval", vae, "--changed-data", "--json")
    assert json.loads(found.out)["changed_data"] is True
    assert call("report", vae, story / "made", "--changed-data", "--plain", "-o", story / "page").status == 0
    notes = json.loads((story / "page" / "results.json").read_text())["data"]["notes"]
    assert any("has changed since these runs were trained" in note and str(vae) in note for note in notes)


def test_training_that_goes_on_with_changed_data_says_so(story: Path, made: Path, call: Any) -> None:
    vae = story / "vae"
    tensors, record = load_tensors(vae / "checkpoints" / "last.safetensors")
    save_tensors(vae / "checkpoints" / "last.safetensors", tensors, record | {"ended": None})  # as if stopped
    before = (vae / "events.jsonl").read_bytes(), (vae / "checkpoints" / "last.safetensors").read_bytes()
    change(made)
    refused(call("fit", "--resume", "-o", vae, "--plain"))
    assert before == ((vae / "events.jsonl").read_bytes(), (vae / "checkpoints" / "last.safetensors").read_bytes())
    for _ in range(2):
        assert call("fit", "--resume", "-o", vae, "--plain", "--changed-data").status == 0
    now = digest_of(load_data(made / "t.csv"))
    said = [event["changed_data"] for event in Run(vae).events() if "changed_data" in event]
    assert said == [now]
    assert "The data had changed at step 5" in (vae / "report.html").read_text()
    assert Run(vae).config["digest"] != now  # what the run was begun on


def test_data_of_another_shape_is_not_gone_on_with(story: Path, made: Path, call: Any) -> None:
    x = np.random.default_rng(0).normal(size=(200, 3))
    (made / "t.csv").write_text("\n".join(",".join(map(repr, row)) for row in x.tolist()))
    vae = story / "vae"
    for command in (("eval", vae), ("report", vae, "-o", story / "p"), ("check", vae)):
        found = call(*command, "--changed-data")
        assert (found.status, found.err.count("\n")) == (2, 1)
        assert "t.csv has vector of 3, real now, but" in found.err


def test_a_contest_refuses_other_data(story: Path, made: Path, call: Any) -> None:
    words = [
        "compare",
        made / "t.csv",
        "-o",
        story / "c",
        "--minutes",
        "0.02",
        "--models",
        "gaussian-mixture",
        "--plain",
    ]
    assert call(*words).status == 0
    change(made)
    refused(call(*words), str(made / "t.csv"))
    refused(call("compare", "-o", story / "c", "--plain"))
    found = call("compare", "-o", story / "c", "--plain", "--changed-data")
    assert found.status == 0, found.err
    notes = json.loads((story / "c" / "results.json").read_text())["data"]["notes"]
    assert any("has changed since the comparison started" in note for note in notes)


def test_other_data_or_options_than_those_of_the_run_are_not_passed_over(story: Path, made: Path, call: Any) -> None:
    again = ["fit", "--resume", "-o", story / "vae", "--plain"]
    for words in (["digits", "vae"], [], ["--limit", "10"], ["--label", "kind"]):
        if words:
            found = call(*again, *words)
            assert (found.status, found.err.count("\n")) == (2, 1)
            assert "cannot be changed on resume; remove" in found.err
    assert call("fit", made / "t.csv", "vae", *again[1:]).status == 0


def test_the_same_rows_in_another_order_are_the_same_data(story: Path, made: Path, call: Any) -> None:
    rng = np.random.default_rng(1)
    table(made / "t.csv", rng.permutation(np.random.default_rng(0).normal(size=(200, 2))))
    before = json.loads(call("eval", story / "made", "--json").out)["figures"]
    assert call("eval", story / "made").status == 0
    text = (made / "t.csv").read_text().splitlines()
    (made / "t.csv").write_text("\n".join([text[0], *sorted(text[1:])]) + "\n\n")
    after = json.loads(call("eval", story / "made", "--json").out)["figures"]
    assert before == after


def test_runs_of_versions_before_are_refused_with_the_reason(story: Path, call: Any) -> None:
    config = json.loads((story / "vae" / "config.json").read_text())
    config["digest"] = "0123456789abcdef0123456789abcdef"
    (story / "vae" / "config.json").write_text(json.dumps(config))
    assert "digest is" in call("eval", story / "vae").err
    for name in ("best", "last"):
        path = story / "vae" / "checkpoints" / f"{name}.safetensors"
        tensors, record = load_tensors(path)
        save_tensors(path, tensors, {k: v for k, v in record.items() if k != "run"})  # versions before kept none there
    found = call("eval", story / "vae")
    assert (found.status, found.err.count("\n")) == (2, 1)
    assert "is from an older version, which split data differently" in found.err
    assert MEND in found.err
    assert call("eval", story / "vae", "--changed-data").status == 0
    del config["digest"]
    (story / "vae" / "config.json").write_text(json.dumps(config))
    assert call("eval", story / "vae").status == 2


def test_the_names_of_classes_are_known_without_the_data(story: Path, made: Path, call: Any, tmp_path: Path) -> None:
    words = ["--given", "label", "-o", tmp_path / "given", "--preset", "tiny", "--steps", "3", "--plain"]
    assert call("fit", made / "t.csv", "vae", *words).status == 0
    change(made)
    assert call("sample", tmp_path / "given", "--given", "v", "-o", tmp_path / "s.npy").status == 0
    (made / "t.csv").unlink()
    assert call("sample", tmp_path / "given", "--given", "u", "-o", tmp_path / "s.npy").status == 0
    found = call("sample", tmp_path / "given", "--given", "w", "-o", tmp_path / "s.npy")
    assert "there is no such class" in found.err or "is not a number" in found.err


# --- in Python --------------------------------------------------------------------------------------------------------


def test_resuming_and_evaluating_in_python(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(100, 2))
    np.save(tmp_path / "x.npy", x)
    data = load_data(tmp_path / "x.npy")

    def model() -> Any:
        return unsup.create("made", data.event, preset="tiny", seed=0)

    unsup.fit(model(), data, out=tmp_path / "r", steps=4, progress="off")
    np.save(tmp_path / "x.npy", x[:-1])
    changed = load_data(tmp_path / "x.npy")
    with pytest.raises(unsup.InputError, match=SAID):
        unsup.fit(model(), changed, out=tmp_path / "r", resume=True, steps=4, progress="off")
    with pytest.raises(unsup.InputError, match=SAID):
        _ = open_run(tmp_path / "r").data
    run = open_run(tmp_path / "r", changed_data=True)
    assert len(run.data.train) + len(run.data.validation) + len(run.data.test) == 99
    assert run.data_changed
    unsup.fit(model(), changed, out=tmp_path / "r", resume=True, changed_data=True, steps=4, progress="off")
    # The same content is the same data, wherever it lies and in whatever order.
    (tmp_path / "other").mkdir()
    np.save(tmp_path / "other" / "y.npy", x[::-1])
    moved = load_data(tmp_path / "other" / "y.npy")
    unsup.fit(model(), moved, out=tmp_path / "r", resume=True, steps=4, progress="off")
    unsup.fit(model(), unsup.from_arrays(x), out=tmp_path / "r", resume=True, steps=4, progress="off")


def every_field() -> Data:
    """Data with all that a split may hold."""
    rng = np.random.default_rng(0)
    x = [rng.integers(0, 4, n) for n in rng.integers(1, 6, 60)]
    more = [rng.integers(0, 4, n) for n in rng.integers(1, 6, 90)]
    return unsup.from_arrays(
        x, rng.integers(0, 3, 60), given=rng.normal(size=(60, 2)), weight=rng.random(60), unlabelled=more
    )


@pytest.mark.parametrize("part", ["train", "validation", "test"])
@pytest.mark.parametrize("field", ["examples", "label", "given", "lengths", "weight", "stream x", "stream lengths"])
@pytest.mark.parametrize("row", [0, -1])
def test_one_number_anywhere_changes_the_digest(part: str, field: str, row: int) -> None:

    data = every_field()
    assert data.digest == every_field().digest
    split: Split = getattr(data, part)
    target = split.streams["unlabelled"] if field.startswith("stream") else split
    name = {"stream x": "examples", "stream lengths": "lengths"}.get(field, field)
    value = getattr(target, name).clone()
    value[row] = value[row] + 1
    spoilt = replace(target, **{name: value})
    if field.startswith("stream"):
        spoilt = replace(split, streams={"unlabelled": spoilt})
    assert replace(data, **{part: spoilt}).digest != data.digest
    for gone in ("label", "weight"):
        assert replace(data, **{part: replace(split, **{gone: None})}).digest != data.digest
    swapped = replace(split, examples=split.x.flip(0))
    assert replace(data, **{part: swapped}).digest != data.digest


def test_grey_levels_are_part_of_the_digest() -> None:

    data = load_data("digits")
    grey = data.train.x.clone()
    one = replace(data, train=replace(data.train, grey=grey))
    grey = grey.clone()
    grey[-1, 0, 3, 3] += 1
    assert len({data.digest, one.digest, replace(data, train=replace(data.train, grey=grey)).digest}) == 3


@pytest.mark.parametrize("kind", ["one", "shards", "channels last"])
def test_data_on_disk_has_the_digest_of_the_same_data_in_memory(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (80, 6, 5, 3), dtype=np.uint8) if kind == "channels last" else rng.normal(size=(80, 4))
    if kind == "shards":
        np.save(tmp_path / "a.npy", x[:30])
        np.save(tmp_path / "b.npy", x[30:])
    path = tmp_path if kind == "shards" else tmp_path / "a.npy"
    if kind != "shards":
        np.save(path, x)
    one, two = (load_data(path, in_memory=in_memory) for in_memory in (True, False))
    assert not isinstance(two.train.examples, torch.Tensor)
    assert one.digest == two.digest
    assert one.train.take(torch.arange(9)).digest() == two.train.take(torch.arange(9)).digest()
    x[-1] = x[0] if kind == "channels last" else x[-1] + 1e-9
    np.save(path if kind != "shards" else tmp_path / "b.npy", x if kind != "shards" else x[30:])
    assert load_data(path, in_memory=False).digest != one.digest


def test_one_pixel_of_one_image_of_any_split_is_noticed(tmp_path: Path, call: Any) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
    for i, image in enumerate(pixels):
        (tmp_path / "photos" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "photos" / "ab"[i % 2] / f"{i}.png")
    words = ["--preset", "tiny", "--steps", "2", "--plain"]
    assert call("fit", tmp_path / "photos", "vae", "-o", tmp_path / "r", *words).status == 0
    for i in (0, 17, 39):
        file = tmp_path / "photos" / "ab"[i % 2] / f"{i}.png"
        kept = file.read_bytes()
        changed = pixels[i].copy()
        changed[3, 3] ^= 1
        Image.fromarray(changed).save(file)
        refused(call("eval", tmp_path / "r"))
        file.write_bytes(kept)
        assert call("eval", tmp_path / "r").status == 0
    (tmp_path / "photos/a/0.png").rename(tmp_path / "photos/b/0.png")  # another label
    refused(call("eval", tmp_path / "r"))


def test_a_run_without_a_checkpoint_begins_anew_on_the_data_as_it_is(story: Path, made: Path, call: Any) -> None:
    vae = story / "vae"
    for path in (vae / "checkpoints").iterdir():
        path.unlink()
    assert "has lost its checkpoints" in call("fit", "--resume", "-o", vae, "--plain").err
    (vae / "events.jsonl").unlink()  # it was killed before the first of both
    change(made)
    refused(call("fit", "--resume", "-o", vae, "--plain"))
    assert call("fit", "--resume", "-o", vae, "--plain", "--changed-data").status == 0
    assert Run(vae).config["digest"] == digest_of(load_data(made / "t.csv"))
    assert call("eval", vae).status == 0


def test_names_of_classes_and_columns_are_part_of_the_data() -> None:
    data = load_data("digits")
    renamed = replace(data, labels=tuple(f"no. {name}" for name in data.labels or ()))
    assert digest_of(renamed) != digest_of(data)
    columns = [replace(unsup.from_arrays(np.eye(30)), columns=tuple(f"{i}{j}" for j in range(30))) for i in "ab"]
    assert digest_of(columns[0]) != digest_of(columns[1])


def test_rows_that_are_equal_but_for_what_is_left_out_are_said(tmp_path: Path) -> None:
    rows = [f"{i},{i % 20},{i % 20 * 2}" for i in range(100)]
    (tmp_path / "t.csv").write_text("\n".join(["id,a,b", *rows]))
    assert any(
        "80 rows differ from another row only in" in note for note in load_data(tmp_path / "t.csv", drop=("id",)).notes
    )
    assert not any("differ from another" in note for note in load_data(tmp_path / "t.csv").notes)
