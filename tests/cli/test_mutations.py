"""Whatever is damaged in a folder: the same result as before, or one line and exit status 2."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import random
import re
import resource
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mutations import changed_json, copied, mutate

import unsup
from unsup.cli.main import main
from unsup.core.errors import InputError
from unsup.core.storage import RECORD, asked, load_tensors, save_tensors
from unsup.report.page import write_page

SECONDS = 20  # that one command may take
MOST_MEMORY = 1_000_000  # KiB, over all mutations of a test
NEEDED = ("config.json", ".safetensors")  # all other files are beside the matter
FEW, MANY = 300, 20_000


class Late(BaseException):
    """Not an `OSError`, as `TimeoutError` is: that would be caught where files are written."""


def called(*words: object) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a command that may not take long."""
    out, err = io.StringIO(), io.StringIO()
    handler = logging.StreamHandler(err)
    logging.getLogger("unsup").addHandler(handler)

    def late(number: int, frame: object) -> None:
        raise Late(f"{words} took more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main([str(w) for w in words])
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        logging.getLogger("unsup").removeHandler(handler)
    return status, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """A run that was stopped half-way, a run of a model that counts, and a saved model with a model in it."""
    root = tmp_path_factory.mktemp("mutated")
    data = unsup.load_data("moons", n=300)

    def stop(snapshot) -> None:
        if snapshot.done == 3:
            signal.raise_signal(signal.SIGINT)

    vae = unsup.create("vae", data.event, preset="tiny", prior={"name": "made", "options": {"hidden": [6]}})
    assert unsup.fit(vae, data, out=root / "vae", steps=6, ema=0.9, progress=stop).interrupted
    called("eval", root / "vae", "--examples", 20)
    mixture = unsup.create("gaussian-mixture", data.event, preset="tiny", iterations=5)
    unsup.fit(mixture, data, out=root / "mixture", progress="off")
    write_page(root / "mixture")
    vae.save(str(root / "saved"))
    called("sample", root / "vae", "-n", 5, "-o", root / "x.npy")
    return {"vae": root / "vae", "mixture": root / "mixture", "saved": root / "saved", "x": root / "x.npy"}


def _eval(folder: Path, x: Path) -> tuple[int, object, str]:
    status, out, err = called("eval", folder, "--json", "--examples", 5)
    record = json.loads(out) if status == 0 else {}
    return status, {k: v for k, v in record.items() if k != "run"}, err


def _sample(folder: Path, x: Path) -> tuple[int, object, str]:
    target = folder.parent / "samples.npy"
    target.unlink(missing_ok=True)
    status, _, err = called("sample", folder, "-n", 3, "-o", target)
    return status, target.read_bytes() if status == 0 else b"", err


def _score(folder: Path, x: Path) -> tuple[int, object, str]:
    return called("score", folder, x)


def _cite(folder: Path, x: Path) -> tuple[int, object, str]:
    return called("cite", folder)


def _resume(folder: Path, x: Path) -> tuple[int, object, str]:
    status, _, err = called("fit", "--resume", "-o", folder, "--plain")
    if status:
        return status, None, err
    found = {}
    for name in ("best", "last"):
        tensors, _ = load_tensors(folder / "checkpoints" / f"{name}.safetensors")
        found[name] = {k: v.tolist() for k, v in tensors.items()}
    return status, found, err


def _report(folder: Path, x: Path) -> tuple[int, object, str]:
    status, _, err = called("report", folder, "-o", folder.parent / "page", "--plain")
    return status, None, err


def _load(folder: Path, x: Path) -> tuple[int, object, str]:
    """`unsup.load`, which commands and Python share, of a saved model."""
    try:
        model = unsup.load(str(folder))
    except InputError as error:
        return 2, None, f"unsup: error: {' '.join(str(error).split())}\n"
    return 0, {k: v.tolist() for k, v in model.state_dict().items()}, ""


Trial = Callable[[Path, Path], tuple[int, object, str]]
TRIALS: dict[Trial, dict[str, int]] = {
    _eval: {"vae": 12, "mixture": 12},
    _sample: {"vae": 12, "mixture": 12},
    _score: {"vae": 12, "mixture": 12},
    _cite: {"vae": 5, "mixture": 5},
    _resume: {"vae": 3},
    _report: {"vae": 1},
    _load: {"saved": 11},
}


def _damaged(folders: dict[str, Path], work: Path, seed: int, count: int) -> Iterator[tuple[str, str, str]]:
    """(command, how it was damaged, what came of it), of ``count`` mutations; any other outcome is an error."""
    rng = random.Random(seed)
    pairs = [(trial, name) for trial, shares in TRIALS.items() for name, n in shares.items() for _ in range(n)]
    sound = {}
    for trial, name in dict.fromkeys(pairs):
        sound[trial, name] = trial(copied(folders[name], work / "run"), folders["x"])
        assert sound[trial, name][0] == 0, sound[trial, name]
    for number in range(count):
        trial, name = rng.choice(pairs)
        folder = copied(folders[name], work / "run")
        path = rng.choice(sorted(p for p in folder.rglob("*") if p.is_file() and p.name != ".lock"))
        told = f"mutation {number} of seed {seed}: {trial.__name__} {name}, {mutate(path, rng)}"
        try:
            status, result, err = trial(folder, folders["x"])
        except BaseException as error:
            raise AssertionError(f"{told}: {type(error).__name__}: {error}") from error
        lost = re.search(r"the best parameters.* are lost", err) is not None
        said = r"(note:|unsup: note: training is not|step |pass |.*[▸✓]|.*the best parameters.* are lost|resuming )"
        lines = [line for line in err.splitlines() if not re.match(said, line)]
        assert "Traceback" not in err, (told, err)
        if status == 0:
            assert not lines, (told, lines)
            if lost:  # then others are handed out, and said to be others
                assert not (folder / "checkpoints" / "best.safetensors").is_file() or trial is _resume
                yield trial.__name__[1:], told, "said: others"
                continue
            assert result == sound[trial, name][1], f"{told}: another result"
            yield trial.__name__[1:], told, "said, and the same" if "note:" in err else "the same"
        else:
            assert status == 2, (told, status, err)
            assert len(lines) == 1, (told, err)
            assert lines[0].startswith("unsup: error: "), (told, err)
            assert len(lines[0]) < 2000, told
            assert path.name.endswith(NEEDED), f"{told}: {err}"  # what is beside the matter stops nothing
            yield trial.__name__[1:], told, "refused"


def _counted(folders: dict[str, Path], work: Path, seed: int, count: int) -> Counter[tuple[str, str]]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = Counter((command, outcome) for command, _, outcome in _damaged(folders, work, seed, count))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_MEMORY
    return found


@pytest.mark.slow
def test_damaged_folders_give_the_same_or_one_line(folders, tmp_path):
    found = _counted(folders, tmp_path, 1, FEW)
    assert sum(found.values()) == FEW
    outcomes = {outcome for _, outcome in found}
    assert {"refused", "the same"} <= outcomes


def _consistent(folder: Path, rng: random.Random) -> str:
    """Change ``config.json`` and what the checkpoints repeat of it alike, digests included, as only malice does."""
    path = folder / "config.json"
    text = changed_json(path.read_text(), rng)
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        config = json.loads(text)
    except (ValueError, RecursionError):
        return text
    for checkpoint in folder.rglob("*.safetensors"):
        tensors, record = load_tensors(checkpoint)
        own = config if checkpoint.parent == folder else asked(config) if isinstance(config, dict) else config
        with contextlib.suppress(RecursionError):
            save_tensors(checkpoint, tensors, own if checkpoint.parent == folder else record | {RECORD: own})
    return text


def _malicious(folders: dict[str, Path], work: Path, seed: int, count: int) -> Counter[int]:
    """Exit statuses of ``count`` folders that agree with themselves and are no folders of ours."""
    rng = random.Random(seed)
    found: Counter[int] = Counter()
    for number in range(count):
        trial, name = rng.choice([(_load, "saved"), (_eval, "vae"), (_sample, "mixture"), (_score, "vae")])
        folder = copied(folders[name], work / "run")
        text = _consistent(folder, rng)
        try:
            status, _, err = trial(folder, folders["x"])
        except BaseException as error:
            raise AssertionError(f"{number} of seed {seed}, {trial.__name__}: {error!r}\n{text[:3000]}") from error
        assert status in (0, 2), (text, status, err)
        assert "Traceback" not in err, (text, err)
        found[status] += 1
    return found


def test_folders_made_with_malice_end_in_one_line(folders, tmp_path):
    found = _malicious(folders, tmp_path, 1, 150)
    assert found[2] > found[0]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_thousand_folders_made_with_malice(folders, tmp_path, capsys):
    found = _malicious(folders, tmp_path, 2, 2000)
    with capsys.disabled():
        print(f"\n{dict(found)}")  # the counts that the docs give
    assert found[2] > found[0]


@pytest.fixture(scope="module")
def contest(tmp_path_factory) -> Path:
    """A small contest that is over."""
    folder = tmp_path_factory.mktemp("contest") / "c"
    words = ("--minutes", 0.05, "--models", "histogram,gaussian-mixture", "--n", 300, "--plain")
    status, _, err = called("compare", "moons", "-o", folder, *words)
    assert status == 0, err
    return folder


def _contests(contest: Path, work: Path, seed: int, count: int) -> Counter[str]:
    rng = random.Random(seed)
    found: Counter[str] = Counter()
    for number in range(count):
        folder = copied(contest, work / "c")
        files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != ".lock")
        path = rng.choice([p for p in files if p.suffix in (".json", ".jsonl", ".npz", ".safetensors")])
        told = f"mutation {number} of seed {seed}: {mutate(path, rng)} in {path.parent.name}"
        try:
            status, _, err = called("compare", "-o", folder, "--plain")
        except BaseException as error:
            raise AssertionError(f"{told}: {type(error).__name__}: {error}") from error
        assert "Traceback" not in err, (told, err)
        assert status in (0, 2), (told, status, err)
        for failure in folder.rglob("failure.json"):
            # A contest catches everything, and names what is no error of ours by its type.
            assert not re.search(r'"reason": "\w+(Error|Exception): ', failure.read_text()), (told, failure.read_text())
        found["done" if status == 0 else "refused"] += 1
    return found


@pytest.mark.slow
def test_damaged_contests_are_gone_on_with_or_refused(contest, tmp_path):
    found = _contests(contest, tmp_path, 1, 12)
    assert found["done"]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_damaged_contests(contest, tmp_path, capsys):
    found = _contests(contest, tmp_path, 2, 200)
    with capsys.disabled():
        print(f"\n{dict(found)}")  # the counts that the docs give
    assert set(found) == {"done", "refused"}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_twenty_thousand_mutations(folders, tmp_path, capsys):
    found = _counted(folders, tmp_path, 2, MANY)
    with capsys.disabled():
        for (command, outcome), n in sorted(found.items()):
            print(f"\n{command:8} {outcome:20} {n:>7,}", end="")  # the counts that the docs give
        print(f"\n{MANY:,} mutations")
    assert sum(found.values()) == MANY
