"""Bad input: one line that names the mend, exit status 2, no traceback, nothing lost."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image


def one_line(called, *expected: str) -> None:
    assert called.status == 2, (called.status, called.out, called.err)
    assert called.err.count("\n") == 1, called.err
    assert "Traceback" not in called.err
    assert called.err.startswith("unsup: error: ")
    for words in expected:
        assert words in called.err, called.err


def pngs(folder, count, size=(8, 8)):
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(count)
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(folder / f"{size[0]}-{i}.png")
    return folder


FIT = ("--steps", 1, "--preset", "tiny", "--plain")


def test_unknown_names_offer_the_nearest(call, tmp_path):
    run = tmp_path / "r"
    one_line(call("fitt"), "'fit'")
    one_line(call("fit", "digits", "maded", "-o", run), "'made'")
    one_line(call("fit", "digit", "made", "-o", run), "'digits'")
    one_line(call("fit", "digits", "made", "-o", run, "--epoch", 3), "'--epochs'")
    one_line(call("fit", "digits", "made", "-o", run, "--model.hiden", 3), "'--model.hidden'")
    one_line(call("fit", "digits", "made", "-o", run, "--preset", "papper"), "'paper'")
    one_line(call("models", "--family", "flow"), "'flows'")
    one_line(call("data", "mnits"), "'mnist'")
    one_line(call("reproduce", "digit"), "digits")
    assert not run.exists()


def test_wrong_values_are_refused(call, tmp_path, runs):
    run = tmp_path / "r"
    one_line(call("fit", "digits", "made", "-o", run, "--steps", "many"), "--steps", "many")
    one_line(call("fit", "digits", "made", "-o", run, "--steps", 3, "--epochs", 3), "one of steps, epochs and minutes")
    one_line(call("fit", "digits", "made", "-o", run, "--lr", -1), "lr")
    one_line(call("fit", "digits", "made", "-o", run, "--model.order", "sideways"), "sideways", "natural")
    one_line(call("fit", "digits", "made", "-o", run, "--device", "gpu"), "'gpu'", "cuda:N")
    one_line(call("fit", "digits", "made"), "-o FOLDER")
    one_line(call("fit", "digits"), "-o FOLDER")
    one_line(call("sample", runs / "made", "-n", 0, "-o", tmp_path / "x.npy"), "-n=0 should be at least 1")
    one_line(call("sample", runs / "made", "-o", tmp_path / "x.gif"), ".png", ".npy")
    one_line(
        call("sample", runs / "made", "-o", tmp_path / "x.npy", "--label", 3), "does not support conditions", "pixelcnn"
    )
    one_line(
        call("sample", runs / "vae", "-o", tmp_path / "x.npy", "--top-k", 3),
        "vae has no option '--top-k'",
        "its sampling has",
    )
    one_line(call("sample", runs / "made", "-o", tmp_path / "x.npy", "--temprature", 3), "'--temperature'")
    one_line(call("sample", runs / "made", "-o", tmp_path / "x.npy", "--prompt", "a"), "--prompt", "is for text")
    one_line(
        call("sample", runs / "made", "-o", tmp_path / "x.npy", "--given", 3), "does not support conditions", "pixelcnn"
    )
    one_line(call("sample", runs / "made", "-o", tmp_path / "x.npy", "--sample.temperature", 0), "above 0")
    one_line(
        call("sample", runs / "made", "-o", tmp_path / "x.npy", "--sample.temprature", 1), "'--sample.temperature'"
    )
    one_line(call("eval", runs / "vae", "--importance-samples", 0), "at least 1")
    one_line(
        call("fit", "digits", "vae", "-o", run, "--model.hidden", 3.5), "--model.hidden takes whole numbers, not '3.5'"
    )
    one_line(
        call("fit", "digits", "vae", "-o", run, "--model.hidden", 32, "big"), "--model.hidden takes whole", "'big'"
    )
    one_line(call("fit", "--model.hidden", 32, "digits", "vae", "more", "-o", run), "unexpected argument 'more'")
    assert not run.exists()


def test_model_that_does_not_take_the_data_names_those_that_do(call, tmp_path):
    one_line(call("fit", "moons", "pixelcnn", "-o", tmp_path / "r", *FIT), "models that take it", "realnvp")
    assert not (tmp_path / "r").exists()


def test_empty_folder(call, tmp_path):
    (tmp_path / "empty").mkdir()
    one_line(call("fit", tmp_path / "empty", "made", "-o", tmp_path / "r"), "empty")


def test_mixed_sizes_say_how_to_resize(call, tmp_path):
    folder = pngs(tmp_path / "p", 5)
    pngs(folder, 5, (9, 9))
    one_line(call("fit", folder, "made", "-o", tmp_path / "r", *FIT), "--resize")
    assert call("fit", folder, "made", "-o", tmp_path / "r", *FIT, "--resize", 4).status == 0


def test_truncated_png_is_named_skipped_and_counted(call, tmp_path):
    folder = pngs(tmp_path / "p", 12)
    bad = folder / "8-3.png"
    bad.write_bytes(bad.read_bytes()[:40])
    found = call("data", folder)
    assert found.status == 0
    assert "8-3.png" in found.out
    assert "11 images" in found.out
    assert bad.exists()


def test_mostly_bad_images_are_refused(call, tmp_path):
    folder = pngs(tmp_path / "p", 6)
    for i in range(5):
        (folder / f"8-{i}.png").write_bytes(b"\x89PNG nonsense")
    one_line(call("fit", folder, "made", "-o", tmp_path / "r", *FIT), "5 of 6")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a,b\n1,2\n3,x\n5,6\n", ["line 3", "x"]),
        ("a,b\n1.5,2\nnan,2\n,2\n", ["at least 3"]),
        ("a,b\n1.5,2\ninf,4\n5,6\n", ["inf"]),
        ("", ["empty"]),
    ],
)
def test_bad_tables(call, tmp_path, text, expected):
    (tmp_path / "t.csv").write_text(text)
    one_line(call("fit", tmp_path / "t.csv", "made", "-o", tmp_path / "r"), *expected)
    assert (tmp_path / "t.csv").read_text() == text


def test_values_that_are_not_finite(call, tmp_path):
    x = np.random.default_rng(0).normal(size=(50, 3))
    x[7, 1] = np.inf
    np.save(tmp_path / "x.npy", x)
    one_line(call("fit", tmp_path / "x.npy", "made", "-o", tmp_path / "r"), "infinite", "row 7, column 1")


def test_pickled_arrays_are_refused(call, tmp_path):
    np.save(tmp_path / "x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    one_line(call("fit", tmp_path / "x.npy", "made", "-o", tmp_path / "r"))


def test_taken_run_folder_offers_resume(call, tmp_path, runs):
    run = tmp_path / "r"
    shutil.copytree(runs / "made", run)
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    one_line(call("fit", "digits", "made", "-o", run, *FIT), "--resume", "another folder")
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before


def test_resume_needs_the_same_settings(call, tmp_path, runs):
    one_line(call("fit", "--resume", "-o", tmp_path / "none"), "is not a run folder")
    one_line(call("fit", "--resume", "-o", runs / "made", "--lr", 0.5), "lr")
    one_line(call("fit", "digits", "vae", "--resume", "-o", runs / "made"), "made")


def test_damaged_checkpoint_and_foreign_weights(call, tmp_path, runs):
    run = tmp_path / "r"
    shutil.copytree(runs / "made", run)
    best = run / "checkpoints" / "best.safetensors"
    content = bytearray(best.read_bytes())
    content[len(content) // 2] ^= 4
    best.write_bytes(content)
    one_line(call("eval", run), "damaged")
    shutil.copy(runs / "vae" / "checkpoints" / "best.safetensors", best)
    one_line(call("sample", run, "-o", tmp_path / "x.npy"), "model.model is 'made' in config.json and 'vae' in")
    (run / "config.json").write_text("{")
    one_line(call("eval", run), "damaged")


def test_folders_that_hold_no_run(call, tmp_path):
    one_line(call("eval", tmp_path), "is not a run folder")
    one_line(call("eval", tmp_path / "nowhere"), "is not a run folder")
    one_line(call("cite", tmp_path), "is not a run folder")


def test_examples_of_another_shape_say_what_was_expected(call, tmp_path, runs):
    np.save(tmp_path / "x.npy", np.zeros((3, 1, 9, 9), np.uint8))
    one_line(call("score", runs / "made", tmp_path / "x.npy"), "(1, 9, 9)", "(1, 8, 8)")
    np.save(tmp_path / "y.npy", np.full((3, 1, 8, 8), 200, np.uint8))
    one_line(call("score", runs / "made", tmp_path / "y.npy"), "raw data")


def test_codes_that_are_none(call, tmp_path, runs):
    (tmp_path / "z.npz").write_bytes(b"nonsense")
    np.save(tmp_path / "z.npy", np.zeros((2, 4)))
    (tmp_path / "z.csv").write_text("1,2\n3,4\n")
    for name, reason in (
        ("z.npz", "not an .npz or .csv file"),
        ("z.npy", "not an .npz or .csv file"),
        ("z.csv", "no columns z1"),
    ):
        one_line(call("decode", runs / "vae", tmp_path / name, "-o", tmp_path / "x.npy"), reason)
    one_line(call("decode", runs / "vae", tmp_path / "none.npz", "-o", tmp_path / "x.npy"), "does not exist")
    np.savez(tmp_path / "a.npz", a=np.zeros((2, 4)))
    one_line(call("decode", runs / "vae", tmp_path / "a.npz", "-o", tmp_path / "x.npy"), "no codes")
    np.savez(tmp_path / "w.npz", z=np.zeros((2, 999)))
    one_line(call("decode", runs / "vae", tmp_path / "w.npz", "-o", tmp_path / "x.npy"), "999")
    one_line(call("encode", runs / "made", "digits", "-o", tmp_path / "z2.npz"), "cannot encode")
    one_line(call("decode", runs / "made", tmp_path / "z.npz", "-o", tmp_path / "x.npy"), "does not decode")


def test_output_that_cannot_be_written(call, tmp_path, runs):
    (tmp_path / "file").write_text("mine")
    one_line(call("sample", runs / "made", "-o", tmp_path / "file" / "x.npy"), "choose another")
    one_line(call("fit", "digits", "made", "-o", tmp_path / "file", *FIT), "is a file")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_of_other_things_is_no_place_for_a_run(call, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("my notes")
    refused = call("fit", "digits", "histogram", "-o", tmp_path / "mine")
    assert refused.status == 2
    assert "has other files (README.md)" in refused.err
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["README.md"]
    assert (tmp_path / "mine" / "README.md").read_text() == "my notes"


def test_a_run_that_was_stopped_before_it_was_configured_is_begun_again(call, tmp_path):
    for name in ("checkpoints", "samples"):
        (tmp_path / "run" / name).mkdir(parents=True)
    (tmp_path / "run" / "env.json").write_text("{}")
    assert call("fit", "digits", "histogram", "-o", tmp_path / "run", "--plain").status == 0


@pytest.mark.parametrize("key", ["model", "data", "training", "model.model", "model.event", "model.config"])
def test_a_configuration_with_a_hole_is_refused_in_one_line(call, tmp_path, key):
    assert call("fit", "digits", "histogram", "-o", tmp_path / "run", "--plain").status == 0
    path = tmp_path / "run" / "config.json"
    config = json.loads(path.read_text())
    outer, _, inner = key.partition(".")
    del (config[outer] if inner else config)[inner or outer]
    path.write_text(json.dumps(config))
    for command in (("eval", tmp_path / "run"), ("fit", "--resume", "-o", tmp_path / "run")):
        refused = call(*command)
        assert refused.status == 2, command
        assert refused.err.count("\n") == 1
        assert "restore it" in refused.err or "is not a run folder" in refused.err
