"""Several processes against one: the same losses, gradients, scores, files; a lost process; another number of them."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import together
import torch
import torch.distributed as dist

import unsup
from unsup.cli.main import main
from unsup.core.batch import Time
from unsup.core.errors import InputError
from unsup.core.storage import load_tensors
from unsup.train.trainer import fit

if not dist.is_gloo_available():
    pytest.skip("this PyTorch has no gloo", allow_module_level=True)

pytestmark = pytest.mark.timeout(300)
_PATHS = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(_PATHS)}
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
SLOW = (pytest.mark.slow, pytest.mark.timeout(1800))
# One case of each pattern: a network, batch statistics, two players, replay, a partition function.
SHARDED = ("made-1", "realnvp-4", "gan-4", "ebm-0", "rbm-0")
# The same, and packs of examples, where the shares of a batch are not alike.
UNEQUAL = ("made-1", "realnvp-4", "vae-0", "gan-3", "ebm-0", "rbm-0")


def torchrun(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    command = [*TORCHRUN, "2", *arguments]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=280)
    assert not check or done.returncode == 0, done.stderr[-3000:]
    return done


def run_together(folder: Path, processes: int, how: str, batch_size: int, keys: Iterable[str]) -> None:
    """Save the outcomes of cases in so many processes to the folder."""
    command = [sys.executable, together.__file__, str(processes), str(folder), how, str(batch_size), *keys]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]


def firsts() -> dict[str, bool]:
    """Every tiny case of the registry, and whether it is the first of its model, or the first with conditions.

    What is computed for an example is the same for any number of processes: the law "processes" holds every case to
    that, in threads.
    """
    seen, found = set(), {}
    for key, case in together.all_cases().items():
        kind = case.model, case.classes > 0
        found[key] = kind not in seen
        seen.add(kind)
    return found


FIRSTS = firsts()


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> Callable[[bool], Path]:
    """What two processes made of the first cases of the models, or of the others."""

    @functools.cache
    def made(first: bool) -> Path:
        folder = tmp_path_factory.mktemp("together")
        run_together(folder, 2, "replicate", 16, (k for k, own in FIRSTS.items() if own == first))
        return folder

    return made


@pytest.mark.parametrize("key", [pytest.param(k, marks=() if first else SLOW) for k, first in FIRSTS.items()])
def test_two_processes_are_one(outcomes, key):
    two, _ = load_tensors(outcomes(FIRSTS[key]) / f"{key}.safetensors")
    agree(two, together.outcome(together.all_cases()[key]), 1e-5)


def test_a_sharded_model_learns_the_same(tmp_path):
    run_together(tmp_path, 2, "shard", 16, SHARDED)
    for key in SHARDED:
        two, _ = load_tensors(tmp_path / f"{key}.safetensors")
        agree(two, together.outcome(together.all_cases()[key]), 1e-5)


def test_three_processes_with_unequal_shares_are_one(tmp_path):
    run_together(tmp_path, 3, "replicate", 8, UNEQUAL)
    for key in UNEQUAL:
        three, _ = load_tensors(tmp_path / f"{key}.safetensors")
        agree(three, together.outcome(together.all_cases()[key], batch_size=8), 1e-5)


def agree(two: dict[str, torch.Tensor], one: dict[str, torch.Tensor], tolerance: float) -> None:
    assert set(two) == set(one)
    for name, expected in one.items():
        torch.testing.assert_close(two[name].double(), expected.double(), rtol=tolerance, atol=tolerance, msg=name)


def test_the_command_line_works_in_two_processes(tmp_path):
    runs = {n: tmp_path / f"run-{n}" for n in (1, 2)}
    common = ("fit", "digits", "made", "--steps", "20", "--precision", "float32", "--model.hidden", "32")
    torchrun("-m", "unsup", *common, "-o", str(runs[2]))
    assert main([*common, "-o", str(runs[1])]) == 0
    events = {n: [json.loads(line) for line in (run / "events.jsonl").open()] for n, run in runs.items()}
    assert len(events[1]) == len(events[2])
    for one, two in zip(events[1], events[2], strict=True):
        assert two.get("loss", 0) == pytest.approx(one.get("loss", 0), rel=1e-5)
        assert two.get("nats", 0) == pytest.approx(one.get("nats", 0), rel=1e-5)
    told = torchrun("-m", "unsup", "eval", str(runs[2]), "--json").stdout
    alone = unsup.evaluate_likelihood(unsup.load(runs[2]), unsup.load_data("digits").test.x)
    assert json.loads(told)["figures"]["likelihood"]["value"] == pytest.approx(alone.nats, rel=1e-6)


def test_bad_input_is_said_once(tmp_path):
    done = torchrun("-m", "unsup", "fit", "digits", "made", "-o", str(tmp_path / "r"), "--batch-size", "1", check=False)
    told = "batch_size=1 over 2 processes leaves some of them without an example; use --batch-size 2 or more"
    assert done.stderr.count(told) == 1


LATE = """
import os, sys, time
from unsup.train.parallel import process_group
with process_group() as once:
    time.sleep(3 * (os.environ["RANK"] == "0"))
    once(lambda: sys.stderr.write("this is wrong\\n"))
sys.exit(2)
"""


def test_a_report_of_a_late_first_process_is_not_lost(tmp_path):
    (tmp_path / "late.py").write_text(LATE)
    assert torchrun(str(tmp_path / "late.py"), check=False).stderr.count("this is wrong") == 1


def test_a_lost_process_ends_the_run_which_goes_on_with_another_number(tmp_path):
    run = tmp_path / "run"
    command = ("fit", "digits", "made", "-o", str(run), "--steps", "100000", "--checkpoint-seconds", "0.5", "--plain")
    started = subprocess.Popen(
        [*TORCHRUN, "2", "-m", "unsup", *command],
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        saved = wait_for_checkpoint(run)
        os.kill(worker(started.pid), signal.SIGKILL)
        _, told = started.communicate(timeout=60)
    finally:
        if started.poll() is None:
            os.killpg(started.pid, signal.SIGKILL)
    assert started.returncode != 0
    assert "another process of this run has died" in told
    assert f"unsup fit --resume -o {run}" in told
    before = load_tensors(run / "checkpoints" / "last.safetensors")[1]["done"]
    assert before >= saved > 0
    # The same run, alone: the checkpoint of two processes is one process's.
    found = unsup.open_run(run)
    model = found.new_model()
    settings = {k: v for k, v in found.config["training"].items() if v is not None} | {"steps": 100_000}
    stop_after(model, 5)
    fitted = fit(model, found.data, out=run, resume=True, progress="off", **settings)
    assert fitted.interrupted
    assert fitted.steps == before + 5


def wait_for_checkpoint(run: Path) -> int:
    """The number of steps in the first checkpoint that holds any."""
    path, until = run / "checkpoints" / "last.safetensors", time.monotonic() + 60
    while time.monotonic() < until:
        if path.is_file():
            done = load_tensors(path)[1]["done"]
            if done:
                return done
        time.sleep(0.1)
    raise AssertionError("no checkpoint")


def worker(parent: int) -> int:
    """The second worker of torchrun."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    ranked = {}
    for child in map(int, children):
        environment = dict(v.split("=", 1) for v in Path(f"/proc/{child}/environ").read_text().split("\0") if "=" in v)
        if "RANK" in environment:
            ranked[environment["RANK"]] = child
    return ranked["1"]


def stop_after(model, steps: int) -> None:
    """Send this process the signal of Ctrl-C after some steps."""
    original, left = model.after_step, iter(range(steps - 1, -1, -1))

    def after_step(time: Time) -> None:
        original(time)
        if next(left) == 0:
            os.kill(os.getpid(), signal.SIGTERM)

    model.after_step = after_step


def test_sharding_needs_processes():
    data = unsup.load_data("digits")
    with pytest.raises(InputError, match="start them with torchrun"):
        fit(unsup.create("made", data.event, preset="tiny"), data, shard=True, steps=1, progress="off")
