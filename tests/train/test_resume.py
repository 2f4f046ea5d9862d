"""Going on with a run: from wherever it was cut off to the same end, and not at all once it is finished."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from folders import contents, differences, events, kept_at_every_write
from toys import (
    BITS,
    Ailing,
    Toy,
    binary_data,
    registered,  # noqa: F401 - a fixture for all
)

import unsup
from unsup.core.errors import InputError, TrainingError
from unsup.core.storage import load_tensors, save_tensors
from unsup.train.base import Fitted, Trainer
from unsup.train.counting import CountingTrainer
from unsup.train.runs import Run, open_run
from unsup.train.trainer import fit

pytestmark = pytest.mark.usefixtures("exact_pictures")
Learning = Callable[..., Fitted]
MOONS = unsup.load_data("moons", n=300)


def learning(model: Callable[[], Any], data: Any, **settings: Any) -> Learning:
    def learn(out: Path | None, *, resume: bool = False, **more: Any) -> Fitted:
        return fit(model(), data, out=out, resume=resume, **{"progress": "off"} | settings | more)

    return learn


def mixture(**options: Any) -> Callable[[], Any]:
    return lambda: unsup.create("gaussian-mixture", MOONS.event, **{"components": 3, "seed": 0} | options)


# Every way of learning, and every reason why training ends that no clock decides.
WAYS: dict[str, Learning] = {
    "gradients": learning(lambda: Ailing(BITS), binary_data(), steps=30, lr=0.05, ema=0.9, validate_every=7),
    "gradients, newest kept": learning(lambda: Ailing(BITS), binary_data(), steps=25, lr=0.05, validator="newest"),
    "gradients out of patience": learning(
        lambda: Toy(BITS), binary_data(), steps=200, lr=0.5, patience=2, validate_every=4
    ),
    "gradients of dropout": learning(
        lambda: unsup.create("made", MOONS.event, hidden=(8,), dropout=0.3, seed=0), MOONS, steps=12, validate_every=5
    ),
    "passes that converge": learning(mixture(tolerance=0.01, iterations=60), MOONS),
    "passes up to their number": learning(mixture(tolerance=0.0, iterations=7), MOONS),
    "passes out of patience": learning(mixture(components=4, tolerance=0.0, iterations=20), MOONS, patience=2),
    "one pass": learning(lambda: unsup.create("histogram", MOONS.event), MOONS),
}
ALL = pytest.mark.parametrize("way", WAYS)


def share(copies: list[Path], most: int) -> list[Path]:
    """Some of the copies: before the first checkpoint, all over the run, and the last ones, where it is decided."""
    if len(copies) <= most:
        return copies
    begun = [c for c in copies if c.name.endswith("after-config.json")]
    early, late = copies[: -most // 2], copies[-most // 2 :]
    return [*begun, *early[:: max(1, 2 * len(early) // most)], *late]


# --- wherever it is cut off -------------------------------------------------------------------------------------------


def all_kills(way: str, tmp_path: Path, most: int, **settings: Any) -> int:
    """Kill a run at each of its writes, go on, and return how many were compared with the run that nobody killed."""
    learn = WAYS[way]
    learn(tmp_path / "whole", **settings)
    with kept_at_every_write(tmp_path / "run", tmp_path / "copies") as copies:
        learn(tmp_path / "run", **settings)
    assert differences(tmp_path / "whole", tmp_path / "run") == []
    tried = share(copies, most)
    assert any((c / "config.json").is_file() and not any((c / "checkpoints").glob("*.safetensors")) for c in tried)
    for copy in tried:
        learn(copy, resume=(copy / "config.json").is_file(), **settings)
        found = differences(tmp_path / "whole", copy)
        assert found == [], f"{copy.name}: {found}"
    return len(tried)


@ALL
def test_a_run_killed_at_any_write_ends_as_one_never_stopped(way, tmp_path):
    assert all_kills(way, tmp_path, 24, checkpoint_seconds=0) >= 10


@pytest.mark.parametrize("way", ["gradients", "passes that converge"])
def test_a_run_killed_long_after_its_checkpoint_ends_as_one_never_stopped(way, tmp_path):
    """The log, the best parameters and the pictures are then ahead of what training goes on from."""
    assert all_kills(way, tmp_path, 24, checkpoint_seconds=1e9) >= 10


@pytest.mark.slow
@pytest.mark.timeout(1200)
@ALL
@pytest.mark.parametrize("seconds", [0, 1e9])
def test_a_run_killed_at_every_write_ends_as_one_never_stopped(way, seconds, tmp_path, capsys):
    tried = all_kills(way, tmp_path, 10**6, checkpoint_seconds=seconds)
    with capsys.disabled():
        print(f"\n{way}, a checkpoint every {seconds:g} s: {tried} kills of {tried} ended bit for bit alike")


@ALL
def test_a_run_stopped_by_signals_ends_as_one_never_stopped(way, tmp_path, monkeypatch):
    learn = WAYS[way]
    steps = learn(tmp_path / "whole").steps
    stops = sorted({0, 1, 2, 5, steps // 2, steps - 1} & set(range(steps)))
    save, begin = Trainer.save_if_due, Trainer._start

    def interrupt(self: Trainer) -> None:
        if self.done in stops:
            stops.remove(self.done)
            self.stop_signal = signal.SIGTERM

    def save_if_due(self: Trainer, **options: bool) -> None:
        interrupt(self)
        save(self, **options)

    def start(self: Trainer) -> None:
        begin(self)
        interrupt(self)

    monkeypatch.setattr(Trainer, "save_if_due", save_if_due)
    monkeypatch.setattr(Trainer, "_start", start)
    found = learn(tmp_path / "run")
    while found.interrupted:
        found = learn(tmp_path / "run", resume=True)
    assert not stops
    assert differences(tmp_path / "whole", tmp_path / "run") == []
    assert [{k: v for k, v in e.items() if k != "seconds"} for e in found.events] == events(tmp_path / "whole")
    assert [e["step"] for e in found.events].count(0) <= 1
    assert [bool(e.get("finished")) for e in found.events] == [False] * (len(found.events) - 1) + [True]


def test_symptoms_are_said_at_the_same_steps(tmp_path):
    WAYS["gradients"](tmp_path / "whole")
    assert [e["symptom"] for e in events(tmp_path / "whole") if "symptom" in e] == ["low"]


def test_what_is_compared_tells_runs_apart(tmp_path):
    for name, seed in (("a", 0), ("b", 1)):
        WAYS["gradients"](tmp_path / name, seed=seed)
    assert len(differences(tmp_path / "a", tmp_path / "b")) > 5


def test_a_measured_length_is_saved_at_once(tmp_path, monkeypatch):
    """A run killed after that has the same schedule when it goes on."""
    from unsup.train.gradients import GradientTrainer

    monkeypatch.setattr(GradientTrainer, "_steps_in_budget", lambda self, calibration: 40 if self.done == 10 else 0)
    settings = {"minutes": 5.0, "checkpoint_seconds": 1e9, "progress": "off"}
    with kept_at_every_write(tmp_path / "run", tmp_path / "copies") as copies:
        fit(Toy(BITS), binary_data(), out=tmp_path / "run", **settings)
    monkeypatch.setattr(GradientTrainer, "_steps_in_budget", lambda self, calibration: 60 if self.done == 10 else 0)
    late = [c for c in copies if "-after-" in c.name and events(c) and events(c)[-1]["step"] > 20]
    fit(Toy(BITS), binary_data(), out=late[0], resume=True, **settings)
    assert differences(tmp_path / "run", late[0]) == []


def test_a_run_begun_twice_at_once_is_one_run(tmp_path, monkeypatch):
    """Both have seen an empty folder; the one that comes later leaves it alone."""
    from unsup.core.storage import held_alone

    (tmp_path / "r").mkdir()
    with (
        held_alone(tmp_path / "r", "unsup fit"),
        pytest.raises(InputError, match=rf"another unsup fit \(process {os.getpid()}\) is"),
    ):
        fit(Toy(BITS), binary_data(), out=tmp_path / "r", steps=1, progress="off")
    assert not (tmp_path / "r/config.json").exists()


# --- once it is finished ----------------------------------------------------------------------------------------------


def timed(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {k: (v, (folder / k).stat().st_mtime_ns) for k, v in contents(folder).items() if k != ".lock"}


@ALL
def test_a_finished_run_says_so_and_stays_as_it_is(way, tmp_path, capsys):
    learn, folder = WAYS[way], tmp_path / "run"
    first = learn(folder)
    before = timed(folder)
    for _ in range(2):
        capsys.readouterr()
        again = learn(folder, resume=True, progress="plain")
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"{folder} has already finished (")
        assert line.endswith("); nothing to do")
        assert timed(folder) == before
        assert not again.interrupted
        assert (again.steps, again.events, again.validation) == (first.steps, first.events, first.validation)
        assert (again.score, again.validator) == (first.score, first.validator)
    reason = {"converge": "converged", "patience": "patience"}
    expected = next((said for word, said in reason.items() if word in way), "completed at")
    assert expected in line


@pytest.mark.parametrize("counts", [False, True])
def test_a_run_whose_time_is_over_is_finished(counts, tmp_path, capsys, monkeypatch):
    from unsup.train.gradients import GradientTrainer

    monkeypatch.setattr(GradientTrainer, "_late", lambda self: self.done == 10)
    monkeypatch.setattr(GradientTrainer, "_steps_in_budget", lambda self, calibration: 40 if self.done == 5 else 0)
    monkeypatch.setattr(CountingTrainer, "_over_budget", lambda self, last: self.done == 4)
    model = mixture(tolerance=0.0, iterations=50) if counts else lambda: Toy(BITS)
    learn = learning(model, MOONS if counts else binary_data(), minutes=5.0)
    assert learn(tmp_path / "run").steps == (4 if counts else 10)
    before = timed(tmp_path / "run")
    capsys.readouterr()
    learn(tmp_path / "run", resume=True, progress="plain")
    assert "has already finished (time limit reached at" in capsys.readouterr().err
    assert timed(tmp_path / "run") == before


def test_what_is_finished_is_read_off_the_checkpoint_and_no_other_file(tmp_path):
    learn = WAYS["gradients"]
    learn(tmp_path / "run")
    assert Run(tmp_path / "run").finished
    (tmp_path / "run/events.jsonl").unlink()
    assert Run(tmp_path / "run").finished
    learn(tmp_path / "run", resume=True)
    assert not (tmp_path / "run/events.jsonl").exists()
    with kept_at_every_write(tmp_path / "other", tmp_path / "copies") as copies:
        learn(tmp_path / "other", checkpoint_seconds=0)
    whole = [copy for copy in copies if "-after-" in copy.name]
    begun = whole[len(whole) // 2]
    with (begun / "events.jsonl").open("a") as file:
        file.write(json.dumps({"step": 15, "seconds": 1.0, "finished": True}) + "\n")
    assert not Run(begun).finished
    learn(begun, resume=True)
    assert differences(tmp_path / "other", begun) == []
    Run(begun).checkpoint("last").write_bytes(b"no checkpoint")
    assert not Run(begun).finished


def test_a_damaged_log_neither_stops_a_run_nor_changes_what_it_learns(tmp_path, caplog):
    learn = WAYS["gradients"]
    learn(tmp_path / "whole", checkpoint_seconds=0)
    with kept_at_every_write(tmp_path / "run", tmp_path / "copies") as copies:
        learn(tmp_path / "run", checkpoint_seconds=0)
    for name, spoil in (
        ("cut", lambda text: text[:-40]),
        ("noise", lambda text: "\x00{[\n" + text),
        ("none", lambda text: ""),
    ):
        copy = tmp_path / name
        shutil.copytree([c for c in copies if c.name.endswith("after-last.safetensors")][15], copy)
        log = copy / "events.jsonl"
        log.write_text(spoil(log.read_text()))
        caplog.clear()
        learn(copy, resume=True)
        beside = ("event ", "the record of last: [('events'", "events.jsonl.damaged")
        assert [d for d in differences(tmp_path / "whole", copy) if not d.startswith(beside)] == []
        assert "of events.jsonl are lost" in caplog.text
        steps = [e["step"] for e in events(copy)]
        assert steps == sorted(steps)
        assert sum("finished" in e for e in events(copy)) == 1


def test_a_run_of_an_earlier_version_is_not_gone_on_with_but_can_be_used(tmp_path):
    learn = WAYS["gradients"]
    learn(tmp_path / "run")
    tensors, record = load_tensors(Run(tmp_path / "run").checkpoint("last"))
    for key in ("ended", "kept", "validated", "logged", "events"):
        del record[key]
    save_tensors(Run(tmp_path / "run").checkpoint("last"), tensors, record)
    with pytest.raises(InputError, match=r"earlier version of unsup.*unsup eval .*-o FOLDER"):
        learn(tmp_path / "run", resume=True)
    assert open_run(tmp_path / "run").model is not None


# --- what it hands out ------------------------------------------------------------------------------------------------


def cut_off(learn: Learning, tmp_path: Path, **settings: Any) -> Path:
    """A run killed well after its first validations, with its best parameters behind the newest."""
    with kept_at_every_write(tmp_path / "run", tmp_path / "copies") as copies:
        learn(tmp_path / "run", checkpoint_seconds=0, **settings)
    return next(c for c in reversed(copies) if not Run(c).finished and c.name.endswith("last.safetensors"))


def lose(best: Path, how: str) -> None:
    if how == "missing":
        best.unlink()
    elif how == "damaged":
        content = bytearray(best.read_bytes())
        content[-3] ^= 1
        best.write_bytes(content)
    else:
        tensors, record = load_tensors(best)
        if how == "older":
            record["done"] -= 1
        else:
            tensors = {"model.other": torch.zeros(3)}
        save_tensors(best, tensors, record)


HOW = pytest.mark.parametrize("how", ["missing", "damaged", "older", "of another model"])


@HOW
@pytest.mark.parametrize("way", ["gradients", "passes up to their number"])
def test_lost_best_parameters_are_said_and_looked_for_anew(how, way, tmp_path, caplog):
    learn = WAYS[way]
    copy = cut_off(learn, tmp_path)
    lose(Run(copy).checkpoint("best"), how)
    caplog.clear()
    fitted = learn(copy, resume=True)
    (said,) = [r.getMessage() for r in caplog.records]
    assert said.startswith(f"note: {copy}: the best parameters, of ")
    assert "are lost" in said
    assert "search for the best parameters restarts at" in said
    assert [e["lost"] for e in fitted.events if "lost" in e]
    # What is handed out is what is said of it: its score is that of the parameters in the file.
    handed, about = load_tensors(Run(copy).checkpoint("best"))
    start = next(e["step"] for e in fitted.events if "lost" in e)
    assert about["done"] >= start
    assert about["value"] == fitted.score == fitted.validation.nats
    assert fitted.score == min(e["nats"] for e in fitted.events if "nats" in e and e["step"] >= start)
    model = Run(copy).model
    assert all(torch.equal(v, handed[f"model.{k}"]) for k, v in model.state_dict().items())
    assert load_tensors(Run(copy).checkpoint("last"))[1]["best"] == fitted.score
    # Training itself is what it would have been.
    last, whole = (load_tensors(Run(r).checkpoint("last"))[0] for r in (copy, tmp_path / "run"))
    assert all(torch.equal(last[k], whole[k]) for k in whole)


@HOW
def test_lost_best_parameters_of_a_finished_run_are_said_and_nothing_is_written(how, tmp_path, caplog):
    learn = WAYS["gradients out of patience"]
    learn(tmp_path / "run")
    lose(Run(tmp_path / "run").checkpoint("best"), how)
    before = timed(tmp_path / "run")
    caplog.clear()
    fitted = learn(tmp_path / "run", resume=True)
    (said,) = [r.getMessage() for r in caplog.records]
    assert "are lost" in said
    assert "using the last parameters, of step" in said
    assert timed(tmp_path / "run") == before
    assert fitted.validation is None
    assert fitted.score is None
    last = load_tensors(Run(tmp_path / "run").checkpoint("last"))[0]
    model = Toy(BITS)
    fit(
        model,
        binary_data(),
        out=tmp_path / "run",
        resume=True,
        progress="off",
        steps=200,
        lr=0.5,
        patience=2,
        validate_every=4,
    )
    assert torch.equal(model.logits, last["model.logits"])


def test_killed_while_it_looks_anew_it_looks_anew_again(tmp_path):
    learn = WAYS["gradients out of patience"]
    copy = cut_off(learn, tmp_path)
    Run(copy).checkpoint("best").unlink()
    with kept_at_every_write(copy, tmp_path / "more") as copies:
        learn(copy, resume=True, checkpoint_seconds=0)
    for more in share(copies, 24):
        learn(more, resume=True, checkpoint_seconds=0)
        assert differences(copy, more) == [], more.name


def test_the_best_of_a_later_step_than_the_checkpoint_is_handed_out_as_what_it_is(tmp_path):
    """Killed after it was written and before the next checkpoint, then gone on with for no step."""
    learn = WAYS["gradients"]
    with kept_at_every_write(tmp_path / "run", tmp_path / "copies") as copies:
        learn(tmp_path / "run", checkpoint_seconds=1e9)
    copy = next(c for c in reversed(copies) if c.name.endswith("after-best.safetensors"))
    handed, about = load_tensors(Run(copy).checkpoint("best"))
    assert about["done"] > load_tensors(Run(copy).checkpoint("last"))[1]["done"] == 0

    def stop(self: Trainer) -> None:
        self.stop_signal = signal.SIGINT

    model = Ailing(BITS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Trainer, "_take_best", lambda self, folder, take=Trainer._take_best: (take(self, folder), stop(self))
        )
        patch.setattr(Trainer, "validate", lambda self: None)
        fitted = fit(
            model, binary_data(), out=copy, resume=True, steps=30, lr=0.05, ema=0.9, validate_every=7, progress="off"
        )
    assert fitted.interrupted
    assert torch.equal(model.logits, handed["model.logits"])


def test_a_run_that_lost_its_best_parameters_says_so_wherever_it_is_read(tmp_path, caplog):
    learn = WAYS["gradients"]
    learn(tmp_path / "run")
    _ = open_run(tmp_path / "run").model
    assert not caplog.records
    Run(tmp_path / "run").checkpoint("best").unlink()
    for read in (lambda: open_run(tmp_path / "run").model, lambda: unsup.load(tmp_path / "run")):
        caplog.clear()
        read()
        (said,) = [r.getMessage() for r in caplog.records]
        assert "the best parameters are lost" in said
        assert "using the last parameters, of step 30" in said


def test_a_run_that_never_had_best_parameters_needs_no_warning(tmp_path, caplog):
    with kept_at_every_write(tmp_path / "run", tmp_path / "copies") as copies:
        WAYS["gradients"](tmp_path / "run")
    first = next(c for c in copies if c.name.endswith("after-last.safetensors"))
    assert not Run(first).checkpoint("best").exists()
    _ = open_run(first).model
    assert not caplog.records


@pytest.mark.parametrize("damage", [False, True])
def test_a_lost_last_checkpoint_has_its_own_advice(damage, tmp_path):
    learn = WAYS["gradients"]
    learn(tmp_path / "run")
    last = Run(tmp_path / "run").checkpoint("last")
    last.write_bytes(last.read_bytes()[:-9]) if damage else last.unlink()
    with pytest.raises(InputError) as found:
        learn(tmp_path / "run", resume=True)
    said = str(found.value)
    assert said.startswith(f"{tmp_path / 'run'} cannot be resumed: ")
    assert str(last) in said
    assert f"its best parameters are still usable (unsup eval {tmp_path / 'run'})" in said
    assert "-o FOLDER" in said
    assert "free some space" not in said


def test_a_run_without_any_checkpoint_starts_from_the_beginning_and_says_so(tmp_path, capsys):
    learn = WAYS["gradients"]
    learn(tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "run")
    shutil.rmtree(tmp_path / "run/checkpoints")
    with pytest.raises(InputError, match="has lost its checkpoints"):  # the log tells that there were some
        learn(tmp_path / "run", resume=True)
    (tmp_path / "run/events.jsonl").unlink()
    learn(tmp_path / "run", resume=True, progress="plain")
    assert capsys.readouterr().err.startswith(
        f"{tmp_path / 'run'} has no checkpoint yet; training starts from the beginning"
    )
    assert differences(tmp_path / "whole", tmp_path / "run") == []


# --- messages of the rare ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["gradients", "passes up to their number"])
@pytest.mark.parametrize("moment", ["the log", "a checkpoint"])
def test_a_folder_deleted_while_training_runs_is_said_to_be(way, moment, tmp_path, monkeypatch):
    name = "_log" if moment == "the log" else "save_if_due"
    original = getattr(Trainer, name)

    def delete(self: Trainer, *given: Any, **options: Any) -> None:
        if self.done == 3 and (tmp_path / "run").exists():
            shutil.rmtree(tmp_path / "run")
        original(self, *given, **options)

    monkeypatch.setattr(Trainer, name, delete)
    with pytest.raises(TrainingError) as found:
        WAYS[way](tmp_path / "run", checkpoint_seconds=0)
    said = str(found.value)
    assert said.startswith(f"the run folder {tmp_path / 'run'} was deleted or moved during training")
    assert "free some space" not in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["gaussian-mixture", "made", "vae", "nice"])
def test_data_that_no_setting_can_train_on_are_named_and_no_setting_is(name, tmp_path):
    import numpy as np

    np.save(tmp_path / "big.npy", np.random.default_rng(0).normal(size=(300, 2)) * 1e200)
    data = unsup.load_data(tmp_path / "big.npy")
    model = unsup.create(name, data.event, preset="tiny")
    with pytest.raises(TrainingError) as found:
        fit(model, data, progress="off")
    said = str(found.value)
    assert "the examples reach" in said
    assert "e+200" in said
    assert "--" not in said


def test_advice_names_only_settings_that_are_left_to_try():
    data = binary_data()
    with pytest.raises(TrainingError) as found:
        fit(Toy(BITS, nan_at=5), data, steps=9, clip=0.5, warmup=1000, progress="off", precision="float32", lr=0.25)
    assert "try a smaller --lr (now 0.25)" in str(found.value)
    assert not any(flag in str(found.value) for flag in ("--clip", "--warmup", "--precision"))
    with pytest.raises(TrainingError) as found:
        fit(Toy(BITS, nan_at=5), data, steps=9, progress="off")
    assert "--clip 1 or --warmup 500" in str(found.value)


def test_counting_is_advised_nothing_that_it_does_not_have(monkeypatch):
    model = mixture(iterations=5)()
    monkeypatch.setattr(type(model), "parameter_log_prior", lambda self: torch.tensor(torch.nan))
    with pytest.raises(TrainingError) as found:
        fit(model, MOONS, progress="off")
    assert "look for outliers in the data, or try another --seed" in str(found.value)
    assert not any(flag in str(found.value) for flag in ("--lr", "--clip", "--warmup", "--precision"))


def hear_hangups() -> None:
    """In a new process: SIGHUP ends it, also where the tests themselves run under nohup, which is inherited."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


FIT = [sys.executable, "-m", "unsup", "fit", "moons", "made", "--preset", "tiny", "--n", "300", "--steps", "1000000"]


def slow(*values: Any) -> Any:
    return pytest.param(*values, marks=pytest.mark.slow)


# The other two signals are sent below, under nohup and by a terminal.
@pytest.mark.parametrize("number", [signal.SIGINT, slow(signal.SIGTERM), slow(signal.SIGHUP)])
def test_the_command_saves_at_a_signal_and_its_status_tells_which(number, tmp_path):
    process = subprocess.Popen(
        [*FIT, "-o", tmp_path / "r", "--plain"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        preexec_fn=hear_hangups,
    )
    try:
        wait_for_steps(process, tmp_path / "r")
        process.send_signal(number)
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + number
    assert "and saved; resume with:  unsup fit --resume" in out
    done = load_tensors(Run(tmp_path / "r").checkpoint("last"))[1]["done"]
    assert done >= Run(tmp_path / "r").events()[-1]["step"] > 0


def wait_for_steps(process: subprocess.Popen[str], folder: Path) -> None:
    while process.poll() is None and not any("loss" in e for e in Run(folder).events()):
        time.sleep(0.05)


@pytest.mark.parametrize("plain", [slow(True), False])
def test_a_closed_terminal_ends_training_saved(plain, tmp_path):
    import pty

    child, terminal = pty.fork()
    if child == 0:
        hear_hangups()
        os.execv(sys.executable, [*map(str, FIT), "-o", str(tmp_path / "r"), *["--plain"][:plain]])
    os.set_blocking(terminal, False)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not any("loss" in e for e in Run(tmp_path / "r").events()):
        time.sleep(0.05)
        try:
            os.read(terminal, 1 << 16)
        except BlockingIOError:
            continue
    os.close(terminal)  # the window is closed: SIGHUP, and nobody hears any more
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGHUP
    assert load_tensors(Run(tmp_path / "r").checkpoint("last"))[1]["done"] > 0


def test_nohup_goes_on(tmp_path):
    nohup = shutil.which("nohup")
    assert nohup is not None
    process = subprocess.Popen(
        [nohup, *FIT, "-o", tmp_path / "r", "--plain"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    wait_for_steps(process, tmp_path / "r")
    process.send_signal(signal.SIGHUP)
    try:
        time.sleep(1)
        assert process.poll() is None
        process.terminate()
        process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGTERM


def test_the_second_signal_ends_at_once_only_where_it_is_the_keyboards():
    trainer = object.__new__(CountingTrainer)
    trainer.stop_signal = None
    with trainer._signals():
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGTERM)
        assert trainer.stop_signal == signal.SIGHUP
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("step", [1, 10**6])
def test_a_best_of_another_step_is_not_handed_out_by_anybody(step, tmp_path, caplog):
    """Such as one that was restored from a backup; after the end of training no later one is right either."""
    learn = WAYS["gradients"]
    learn(tmp_path / "run")
    best = Run(tmp_path / "run").checkpoint("best")
    tensors, record = load_tensors(best)
    assert record["done"] != step
    save_tensors(best, {k: v + 1 if v.is_floating_point() else v for k, v in tensors.items()}, record | {"done": step})
    last, _ = load_tensors(Run(tmp_path / "run").checkpoint("last"))
    fitted = learn(tmp_path / "run", resume=True)
    loaded = Run(tmp_path / "run").model
    assert sum("the best parameters" in r.getMessage() for r in caplog.records) == 2
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, last[f"model.{name}"])
    assert fitted is None or fitted.score is None
