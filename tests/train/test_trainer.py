"""The trainer: resuming bit for bit, stopping for every reason, and keeping what is good."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from torch import nn
from toys import (
    BITS,
    Toy,
    binary_data,
    registered,  # noqa: F401 - a fixture for all
)

import unsup
from unsup.core.batch import Batch
from unsup.core.errors import InputError, TrainingError
from unsup.core.event import Event
from unsup.core.model import Model, Objective
from unsup.core.storage import load_tensors, save_tensors
from unsup.data import Data, Split
from unsup.data.source import Source
from unsup.train.ema import EMA
from unsup.train.runs import Run
from unsup.train.schedules import learning_rate_factor
from unsup.train.settings import Settings, make_settings
from unsup.train.trainer import fit


@pytest.fixture(scope="module")
def digits():
    return unsup.load_data("digits")


class PoisonedTest(Data):
    """A data set whose test split must not be touched."""

    def __init__(self, data):
        vars(self).update(vars(data) | {"name": None})

    @property
    def test(self):
        raise AssertionError("the test split was read while training")


# --- resuming ---------------------------------------------------------------------------------------------------------


def same_run(a: Path, b: Path) -> bool:
    left, left_record = load_tensors(Run(a).checkpoint("last"))
    right, right_record = load_tensors(Run(b).checkpoint("last"))
    for record in (left_record, right_record):
        record.pop("seconds")
    return (
        left.keys() == right.keys()
        and left_record == right_record
        and all(torch.equal(left[k], right[k]) for k in left)
    )


ARGUMENTS = ["--steps", "300", "--ema", "0.9", "--clip", "1", "--model.hidden", "16", "--model.dropout", "0.2"]
ARGUMENTS += [
    "--model.masks",
    "2",
    "--no-model.direct",
    "--checkpoint-seconds",
    "0.05",
    "--validate-every",
    "100",
    "--plain",
]


def test_killed_and_resumed_run_ends_bit_for_bit_like_one_never_stopped(tmp_path):
    command = [sys.executable, "-m", "unsup", "fit"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = subprocess.run(
        [*command, "digits", "made", "-o", whole, *ARGUMENTS], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    process = subprocess.Popen(
        [*command, "digits", "made", "-o", killed, *ARGUMENTS],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not any(e["step"] >= 130 for e in Run(killed).events()):
        time.sleep(0.03)
    process.send_signal(signal.SIGKILL)
    process.wait()
    reached = load_tensors(Run(killed).checkpoint("last"))[1]["done"]
    assert 100 < reached < 300, "the kill came too early or too late to prove anything"
    resumed = subprocess.run(
        [*command, "--resume", "-o", killed, "--plain"], env=environment, capture_output=True, text=True
    )
    assert resumed.returncode == 0, resumed.stderr
    assert same_run(whole, killed)
    steps = [e["step"] for e in Run(killed).events() if "loss" in e]
    assert steps == sorted(set(steps))


def test_same_run_tells_different_seeds_apart(tmp_path, digits):
    for seed in (0, 1):
        model = unsup.create("made", digits.event, hidden=(8,), seed=seed)
        fit(model, digits, out=tmp_path / str(seed), steps=3, seed=seed, progress="off")
    assert not same_run(tmp_path / "0", tmp_path / "1")


def test_resume_refuses_another_model(tmp_path, digits):
    fit(unsup.create("made", digits.event, hidden=(8,)), digits, out=tmp_path / "r", steps=2, progress="off")
    other = unsup.create("made", digits.event, hidden=(9,))
    with pytest.raises(InputError, match="a different model"):
        fit(other, digits, out=tmp_path / "r", resume=True, progress="off")


# --- stopping ---------------------------------------------------------------------------------------------------------


def test_nan_stops_with_the_last_good_checkpoint_and_advice(tmp_path):
    model = Toy(BITS, nan_at=25)
    with pytest.raises(TrainingError, match=r"loss is nan at step 2\d.*last good checkpoint.*--lr"):
        fit(model, binary_data(), out=tmp_path / "r", steps=100, checkpoint_seconds=0, progress="off")
    tensors, record = load_tensors(Run(tmp_path / "r").checkpoint("last"))
    assert record["done"] == 25
    assert all(bool(t.isfinite().all()) for t in tensors.values() if t.is_floating_point())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_saves_and_the_run_goes_on_from_there(tmp_path, number):
    model = Toy(BITS)
    before = signal.getsignal(number)
    threading.Timer(0.5, lambda: os.kill(os.getpid(), number)).start()
    fitted = fit(model, binary_data(), out=tmp_path / "r", steps=10**7, checkpoint_seconds=1e9, progress="off")
    assert fitted.interrupted
    assert fitted.signal == number
    assert load_tensors(Run(tmp_path / "r").checkpoint("last"))[1]["done"] == fitted.steps
    assert signal.getsignal(number) is before


def test_interrupted_command_says_how_to_go_on(tmp_path):
    command = [sys.executable, "-m", "unsup", "fit", "digits", "made", "-o", tmp_path / "r", "--preset", "tiny"]
    process = subprocess.Popen(
        [*command, "--steps", "1000000", "--plain"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    while process.poll() is None and not any("loss" in e for e in Run(tmp_path / "r").events()):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"unsup fit --resume -o {tmp_path / 'r'}" in out
    assert load_tensors(Run(tmp_path / "r").checkpoint("last"))[1]["done"] > 0


def test_patience_stops_a_run_that_no_longer_gains():
    fitted = fit(Toy(BITS), binary_data(), steps=4000, lr=0.3, patience=2, progress="off")
    assert fitted.steps < 4000
    best = min(e["nats"] for e in fitted.events if "nats" in e)
    assert fitted.validation.nats == best


def test_minutes_fix_the_number_of_steps_and_are_kept():
    started = time.monotonic()
    fitted = fit(Toy(BITS), binary_data(), minutes=0.05, progress="off")
    assert fitted.events[-1].get("finished")
    assert 1.5 < time.monotonic() - started < 9


def test_a_time_budget_interrupted_before_its_steps_are_fixed_goes_on(tmp_path):
    model = Toy(BITS)
    model.interrupt_at = 6
    fitted = fit(model, binary_data(), out=tmp_path / "r", minutes=0.05, progress="off")
    assert fitted.interrupted
    assert load_tensors(Run(tmp_path / "r").checkpoint("last"))[1]["total"] is None
    model = Toy(BITS)
    fitted = fit(model, binary_data(), out=tmp_path / "r", resume=True, minutes=0.05, progress="off")
    assert fitted.events[-1].get("finished")
    assert fitted.steps > 6


# --- disks ------------------------------------------------------------------------------------------------------------


def test_full_disk_keeps_the_last_checkpoint(tmp_path):
    path = tmp_path / "last.safetensors"
    save_tensors(path, {"a": torch.arange(10)}, {"step": 1})
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))  # the kernel refuses to write more, as a full disk does
    try:
        with pytest.raises(TrainingError, match=r"cannot write .*kept"):
            save_tensors(path, {"a": torch.zeros(100_000)}, {"step": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["last.safetensors"]


def test_full_disk_is_refused_before_training(tmp_path, monkeypatch):
    import shutil

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(InputError, match="MB free"):
        fit(Toy(BITS), binary_data(), out=tmp_path / "r", steps=1, progress="off")


def test_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "r").write_text("mine")
    with pytest.raises(InputError, match="is a file"):
        fit(Toy(BITS), binary_data(), out=tmp_path / "r", steps=1, progress="off")
    assert (tmp_path / "r").read_text() == "mine"


def test_taken_folder_is_refused_and_left_alone(tmp_path):
    fit(Toy(BITS), binary_data(), out=tmp_path / "r", steps=1, progress="off")
    before = {p: p.read_bytes() for p in (tmp_path / "r").rglob("*") if p.is_file()}
    with pytest.raises(InputError, match="--resume"):
        fit(Toy(BITS), binary_data(), out=tmp_path / "r", steps=1, progress="off")
    assert {p: p.read_bytes() for p in (tmp_path / "r").rglob("*") if p.is_file()} == before


def test_damaged_checkpoint_is_refused(tmp_path):
    fit(Toy(BITS), binary_data(), out=tmp_path / "r", steps=3, progress="off")
    best = Run(tmp_path / "r").checkpoint("best")
    content = bytearray(best.read_bytes())
    content[-3] ^= 1  # one flipped bit among the weights
    best.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        _ = Run(tmp_path / "r").model
    best.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="damaged"):
        _ = Run(tmp_path / "r").model


# --- what is learned --------------------------------------------------------------------------------------------------


def test_maximum_likelihood_of_independent_bernoullis_is_the_mean():
    data = binary_data()
    data = dataclasses.replace(data, validation=data.train)
    model = Toy(data.event)
    fit(model, data, steps=1500, lr=0.1, batch_size=400, progress="off")
    torch.testing.assert_close(model.logits.sigmoid(), data.train.x.float().mean(0), atol=2e-3, rtol=0)


class Poisoned(Source):
    """Examples that must not be read."""

    def __len__(self):
        return 10

    def rows(self, indices):
        raise AssertionError("the test split was read while training")

    def take(self, indices):
        return self


def test_test_split_is_never_read(digits):
    poisoned = dataclasses.replace(digits, test=Split(Poisoned()))
    fit(unsup.create("made", digits.event, hidden=(8,)), poisoned, steps=3, progress="off")
    with pytest.raises(AssertionError, match="was read"):
        _ = poisoned.test.x


def test_global_generator_is_left_as_it_was(digits):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    model = unsup.create("made", digits.event, hidden=(8,), dropout=0.5)
    fit(model, digits, steps=3, progress="off")
    assert torch.equal(torch.get_rng_state(), before)


def test_best_parameters_are_kept():
    """Validation examples with every bit flipped get worse with every step, so the start is the best."""
    data = binary_data()
    data = dataclasses.replace(data, validation=Split(1 - data.train.x))
    model = Toy(data.event)
    fitted = fit(model, data, steps=40, validate_every=1, progress="off")
    scored = [e["nats"] for e in fitted.events if "nats" in e]
    assert scored == sorted(scored)
    assert scored[-1] > scored[0] + 0.01
    assert torch.equal(model.logits.detach(), torch.zeros(6))


class TwoPlayers(Model):
    """Each player pulls its own number to its own target; one updates three times as often, on even steps only."""

    def __init__(self, event: Event) -> None:
        self.a, self.b = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))
        self.calls = {"a": 0, "b": 0}

    def loss(self, batch, *, generator=None):
        return {"loss": self.a**2 + self.b**2}

    def objectives(self):
        def pull(name, own):
            def loss(batch, *, generator=None):
                self.calls[name] += 1
                # Both numbers are in both losses: only the objective's own parameters may move.
                return {"loss": (own - 1) ** 2 + 5 * self.a + 7 * self.b}

            return loss

        return (
            Objective("a", pull("a", self.a), (self.a,), repeats=3, every=2, optimizer={"lr": 0.1}),
            Objective("b", pull("b", self.b), (self.b,), optimizer={"lr": 0.0}),
        )


def test_objectives_move_their_own_parameters_at_their_own_pace():
    model = TwoPlayers(BITS)
    fitted = fit(model, binary_data(), steps=10, progress="off")
    assert model.calls == {"a": 15, "b": 10}
    assert model.a.item() != 0
    assert model.b.item() == 0
    assert {"a/loss", "b/loss"} <= set(fitted.events[0])


def test_ema_closed_form():
    layer = nn.Linear(1, 1, bias=False)
    ema = EMA(0.9, layer)
    expected = layer.weight.item()
    for t in range(1, 40):
        with torch.no_grad():
            layer.weight.fill_(float(t))
        ema.update()
        decay = min(0.9, (1 + t) / (10 + t))
        expected = decay * expected + (1 - decay) * t
    assert float(ema.average[0]) == pytest.approx(expected, rel=1e-5)
    with ema.applied():
        assert layer.weight.item() == pytest.approx(expected, rel=1e-5)
    assert layer.weight.item() == 39


def test_bfloat16_and_compile_change_little(digits):
    reference = unsup.create("made", digits.event, hidden=(32,), seed=3)
    fit(reference, digits, steps=30, precision="float32", progress="off", seed=3)
    expected = unsup.evaluate_likelihood(reference, digits.validation.x).nats
    low = unsup.create("made", digits.event, hidden=(32,), seed=3)
    fit(low, digits, steps=30, precision="bfloat16", progress="off", seed=3)
    assert low.dtype == torch.float32
    assert not torch.equal(next(low.parameters()), next(reference.parameters()))
    assert unsup.evaluate_likelihood(low, digits.validation.x).nats == pytest.approx(expected, rel=0.01)


@pytest.mark.slow
def test_compiled_training_equals_eager(digits):
    found = []
    for compiled in (False, True):
        model = unsup.create("made", digits.event, hidden=(32,), seed=3)
        fit(model, digits, steps=20, compile=compiled, progress="off", seed=3)
        found.append(next(model.parameters()).detach())
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-4)


# --- settings ---------------------------------------------------------------------------------------------------------


def test_learning_rate_closed_form():
    total, warmup = 50, 5
    found = [learning_rate_factor(s, total, warmup, "cosine") for s in range(total + 1)]
    assert found[:warmup] == [pytest.approx((s + 1) / warmup) for s in range(warmup)]
    assert found[warmup:] == [
        pytest.approx(0.5 * (1 + math.cos(math.pi * (s - warmup) / (total - warmup)))) for s in range(warmup, total + 1)
    ]


def test_settings_refuse_what_contradicts_or_does_not_exist():
    with pytest.raises(InputError, match="one of steps, epochs and minutes"):
        Settings(steps=1, epochs=1)
    with pytest.raises(InputError, match="did you mean 'batch_size'"):
        make_settings(Toy, {"batchsize": 3})
    with pytest.raises(InputError, match="should be of type float"):
        make_settings(Toy, {"lr": "fast"})
    with pytest.raises(InputError, match="lr=-1"):
        make_settings(Toy, {"lr": -1.0})


def test_an_epoch_shows_every_example_once():
    seen = []

    class Watching(Toy):
        def loss(self, batch: Batch, *, generator=None):
            seen.append(batch.x)
            return super().loss(batch)

    x = torch.arange(64).view(64, 1) // torch.tensor([32, 16, 8, 4, 2, 1]) % 2  # every 6-bit word once
    data = Data(name=None, event=BITS, train=Split(x), validation=Split(x), test=Split(x))
    fit(Watching(data.event), data, epochs=2, batch_size=16, progress="off")
    words = (torch.cat(seen) * torch.tensor([32, 16, 8, 4, 2, 1])).sum(1)
    assert words[:64].sort().values.tolist() == list(range(64))
    assert words[64:].sort().values.tolist() == list(range(64))
    assert words[:64].tolist() != words[64:].tolist()


def test_run_folder_holds_no_pickle(tmp_path, digits):
    fit(unsup.create("made", digits.event, hidden=(8,)), digits, out=tmp_path / "r", steps=2, progress="off")
    suffixes = {p.suffix for p in (tmp_path / "r").rglob("*") if p.is_file()}
    assert suffixes <= {".json", ".jsonl", ".safetensors", ".png", ""}  # the lock has none
    assert json.loads((tmp_path / "r" / "env.json").read_text())["torch"]


def test_counting_makes_no_pass_that_goes_beyond_its_minutes(monkeypatch):
    from unsup.families.classical.gaussian_mixture import GaussianMixture

    data, now, maximize = unsup.load_data("digits"), [0.0], GaussianMixture.maximize
    options = {"components": 10, "covariance": "diagonal", "tolerance": 0.0, "iterations": 50}
    whole = unsup.fit(unsup.create("gaussian-mixture", data.event, **options), data, progress="off").steps

    def slow(self, statistics):
        now[0] += 70.0  # seconds that a pass takes
        maximize(self, statistics)

    monkeypatch.setattr(GaussianMixture, "maximize", slow)
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    cut = unsup.fit(unsup.create("gaussian-mixture", data.event, **options), data, progress="off", minutes=5)
    assert cut.steps == 3 < whole  # the start takes one more
    assert cut.validation is not None


def test_a_machine_that_slows_down_ends_a_time_budget_late_but_not_much(monkeypatch, tmp_path):
    from unsup.train.gradients import GradientTrainer

    step = GradientTrainer._step

    def slow(self, batches):
        time.sleep(0.02)
        return step(self, batches)

    monkeypatch.setattr(GradientTrainer, "_step", slow)
    monkeypatch.setattr(GradientTrainer, "_steps_in_budget", lambda self, calibration: 10_000)
    data = unsup.load_data("moons", n=200)
    model = unsup.create("vae", data.event, preset="tiny")
    found = fit(model, data, out=tmp_path / "run", minutes=0.03, progress="off")
    ended = next(e for e in found.events if "ended" in e)
    assert ended["seconds"] >= 1.5 * 60 * 0.03
    assert ended["step"] == found.steps < 10_000
    assert ended["ended"].startswith("late: ")
    assert found.validation is not None
    assert found.run.finished


def test_what_is_slow_the_first_time_does_not_eat_a_time_budget(monkeypatch):
    from unsup.families.latent.vae import VAE

    log_prob, calls = VAE.log_prob, []

    def slow_once(self, x, **settings):
        calls.append(len(x))
        if len(calls) == 1:
            time.sleep(1.0)
        return log_prob(self, x, **settings)

    monkeypatch.setattr(VAE, "log_prob", slow_once)
    data = unsup.load_data("moons", n=300)
    model = unsup.create("vae", data.event, preset="tiny")
    # Twenty validations of a second each would leave none of these three seconds to training.
    assert fit(model, data, minutes=0.05, progress="off").steps > 30


def test_em_that_was_stopped_converges_where_it_would_have(monkeypatch, tmp_path):
    from unsup.train.counting import CountingTrainer

    data = unsup.load_data("moons", n=500)
    free = unsup.create("gaussian-mixture", data.event, components=8, tolerance=0.0, iterations=100)
    passes = [e["log_prob"] for e in fit(free, data, progress="off").events if "log_prob" in e]
    gains = [b - a for a, b in itertools.pairwise(passes)]
    # Stopped right after a validation (every fifth pass), the next pass is the one that gains too little.
    last = next(i for i in range(4, len(gains), 5) if gains[i] < min(gains[:i]))
    tolerance = (gains[last] + min(gains[:last])) / 2
    options = {"components": 8, "tolerance": tolerance, "iterations": 100}
    whole = unsup.create("gaussian-mixture", data.event, **options)
    expected = fit(whole, data, progress="off").steps
    assert expected == last + 2

    save = CountingTrainer.save_if_due

    def stop(self):
        if self.done == last + 1:
            self.stop_signal = signal.SIGINT
        save(self)

    stopped = unsup.create("gaussian-mixture", data.event, **options)
    with monkeypatch.context() as patch:
        patch.setattr(CountingTrainer, "save_if_due", stop)
        assert fit(stopped, data, out=tmp_path / "run", progress="off").interrupted
    again = unsup.create("gaussian-mixture", data.event, **options)
    assert fit(again, data, out=tmp_path / "run", resume=True, progress="off").steps == expected
    for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)
