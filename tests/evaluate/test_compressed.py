"""Coded bytes: real, decoded and compared, near those that the likelihood implies, or missing with the reason."""

from __future__ import annotations

import io
import json
import math
import shlex
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import unsup
from unsup.cli.main import main
from unsup.coding import compress, decompress
from unsup.coding.chunks import scheme_class
from unsup.coding.container import Container
from unsup.core.deadline import OutOfTime
from unsup.core.errors import InputError
from unsup.core.model import Model
from unsup.data.source import Data
from unsup.evaluate import compressed
from unsup.evaluate.bench import Bench, Measuring
from unsup.evaluate.compressed import coded_size
from unsup.evaluate.exam import Exam
from unsup.evaluate.measures import MEASURES, possible_measures
from unsup.train.trainer import fit

BOTH = ("implied_bytes", "coded_bytes")


@pytest.fixture(scope="module")
def digits() -> Data:
    return unsup.load_data("digits")


@pytest.fixture(scope="module")
def made(digits: Data, tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Path]:
    """A model that has learned enough that no general codec needs fewer bytes, and its run."""
    out = tmp_path_factory.mktemp("made") / "run"
    model = unsup.create("made", digits, preset="tiny", seed=0)
    fit(model, digits, out=out, steps=800, validate_every=0, progress="off", lr=1e-2)
    return model, out


def figures(data: Data, model: Model, **settings: Any) -> tuple[dict[str, Any], dict[str, str]]:
    return Exam(Bench(data, Measuring(**settings)), model, name="it").figures(BOTH)


def test_they_are_those_of_the_file_within_a_hundredth_of_the_implied_ones(
    digits: Data, made: tuple[Model, Path]
) -> None:
    found, missing = figures(digits, made[0])
    assert not missing
    implied, coded = found["implied_bytes"], found["coded_bytes"]
    data = compress(made[0], digits.test.x)
    with Container(io.BytesIO(data), "it") as container:
        size = sum(info.coded_size for info in container.infos())
    assert coded["detail"]["bytes"] == size
    assert coded["value"] == size / len(digits.test.x)
    assert coded["detail"]["file_bytes"] == len(data)
    assert coded["n"] == implied["n"] == len(digits.test.x)
    assert 0 <= coded["detail"]["gap"] < 0.01
    assert coded["detail"]["gap"] == pytest.approx(coded["value"] / implied["value"] - 1)
    for figure in (implied, coded):
        assert figure["detail"]["bits_per_dim"] == pytest.approx(8 * figure["value"] / 64)
    assert coded["error"] == implied["error"]
    json.dumps(found, allow_nan=False)


def test_examples_of_a_part_are_those_of_the_other_measures(digits: Data, made: tuple[Model, Path]) -> None:
    found, _ = figures(digits, made[0], examples=100)
    some = Bench(digits, Measuring(examples=100)).test.x
    assert found["coded_bytes"]["n"] == 100
    with Container(io.BytesIO(compress(made[0], some)), "it") as container:
        assert found["coded_bytes"]["detail"]["bytes"] == sum(info.coded_size for info in container.infos())


def test_a_model_without_a_coder_says_why(digits: Data) -> None:
    bits = unsup.from_arrays((digits.train.x[:200] > 8).numpy().astype("uint8"))
    for name, data in (("vae", digits), ("realnvp", digits), ("rbm", bits)):
        model = unsup.create(name, data, preset="tiny", seed=0)
        reason = scheme_class(model)
        found, missing = figures(data, model)
        assert "implied_bytes" in found
        assert (missing["coded_bytes"] == f"it has no coder ({reason})") == isinstance(reason, str)
    assert isinstance(reason, str)
    gan = unsup.create("gan", digits, preset="tiny", seed=0)
    assert figures(digits, gan)[1]["coded_bytes"] == "it has no likelihood"


def test_real_data_have_none(made: tuple[Model, Path]) -> None:
    moons = unsup.load_data("moons", n=300)
    assert "coded_bytes" not in possible_measures(moons)
    _, missing = figures(moons, unsup.create("made", moons, preset="tiny", seed=0))
    assert "does not imply a number of bytes" in missing["coded_bytes"]


def test_where_a_general_codec_is_better_there_are_none(digits: Data) -> None:
    untrained = unsup.create("made", digits, preset="tiny", seed=0)
    found, missing = figures(digits, untrained)
    assert missing["coded_bytes"].startswith("a general codec needs fewer bytes (24.0 an example) than it")
    assert f"implies {found['implied_bytes']['value']:.1f}" in missing["coded_bytes"]


def test_weighted_examples_have_none(digits: Data, made: tuple[Model, Path]) -> None:
    weighted = replace(digits, test=replace(digits.test, weight=torch.ones(len(digits.test))))
    found, missing = figures(weighted, made[0])
    assert missing == {"coded_bytes": "the examples have weights, but a compressed file has each of them once"}
    assert "implied_bytes" in found


@pytest.mark.parametrize("wrong", ["a level", "the type"])
def test_examples_that_come_back_otherwise_are_no_figure(
    digits: Data, made: tuple[Model, Path], monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    def damaged(model: Model, data: bytes) -> torch.Tensor:
        x = decompress(model, data)
        if wrong == "the type":
            return x.to(torch.int16)
        x[-1, 0, 0, 0] ^= 1
        return x

    monkeypatch.setattr(compressed, "decompress", damaged)
    found, missing = figures(digits, made[0])
    assert "coded_bytes" not in found
    assert missing["coded_bytes"].startswith(f"the {len(digits.test.x)} decoded examples differ")


# --- time -------------------------------------------------------------------------------------------------------------


class Clock:
    """Seconds of coding some examples: those that are the same for any number of them, and those of each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, model: Model, start: float, each: float) -> None:
        self.coded: list[int] = []
        self.now, scheme = 0.0, scheme_class(model)
        assert not isinstance(scheme, str)
        encode = scheme.encode

        def slow(own: Any, x: torch.Tensor) -> bytes:
            self.coded.append(len(x))
            self.now += start + each * len(x)
            return encode(own, x)

        monkeypatch.setattr(scheme, "encode", slow)
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


@pytest.mark.parametrize(
    ("start", "each", "limit", "coded"),
    [
        (0.0, 0.01, 5.0, [8, 360]),  # even the shortest way to extrapolate fits
        (1.0, 0.0, 5.0, [8, 64, 360]),  # nearly all of it is the same for any number
        (1.0, 0.1, 60.0, [8, 64, 360]),
        (0.0, 0.1, 8.0, [8, 64]),  # 36 s
        (0.6, 0.1, 30.0, [8, 64]),
        (0.0, 0.1, 5.0, [8, 64]),  # those few take longer already
        (40.0, 0.0, 60.0, [8]),  # a few examples already take most of the time
        (0.0, 0.1, math.inf, [360]),
    ],
)
def test_all_are_coded_only_where_this_fits(
    digits: Data,
    made: tuple[Model, Path],
    monkeypatch: pytest.MonkeyPatch,
    start: float,
    each: float,
    limit: float,
    coded: list[int],
) -> None:
    clock = Clock(monkeypatch, made[0], start, each)
    x = digits.test.x
    if coded[-1] == len(x):
        assert coded_size(made[0], x, limit, "wait").by_model > 0
    else:
        needed = start + each * len(x)
        with pytest.raises(
            (InputError, OutOfTime), match=r"^coding (would take about|takes more than) .*; wait$"
        ) as error:
            coded_size(made[0], x, limit, "wait")
        if each and limit > 5:
            assert f"would take about {needed:.0f} s here" in str(error.value)
        assert "\n" not in str(error.value)
    assert clock.coded == coded


def test_coding_that_is_slower_than_expected_ends_at_the_limit(
    digits: Data, made: tuple[Model, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compressed, "_seconds_for", lambda model, x, deadline: 0.0)
    with pytest.raises(OutOfTime, match=r"coding takes more than the 0.01 s that were left; wait"):
        coded_size(made[0], digits.test.x, 0.01, "wait")


def test_a_budget_that_is_too_small_is_said_with_the_command_without_it(
    digits: Data, made: tuple[Model, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = made
    bench = Bench(digits, Measuring(seconds=0.02))
    _, missing = Exam(bench, model, name="it", path=out).figures(BOTH)
    assert missing["coded_bytes"].startswith("coding ")
    command = missing["coded_bytes"].split("; use ")[1]
    assert main([*shlex.split(command)[1:], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["figures"]["coded_bytes"]["detail"]["gap"] < 0.01


def test_eval_says_which_is_which_and_the_page_of_the_run_has_it(
    digits: Data, made: tuple[Model, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = made
    assert main(["eval", str(out), "--measures", ",".join(BOTH)]) == 0
    said = capsys.readouterr().out
    found, _ = figures(digits, model)
    coded = found["coded_bytes"]["detail"]
    assert f"coded bytes: {coded['bytes']:,} for 360 examples ({coded['bits_per_dim']:.4f} bits/dim)" in said
    assert f"{100 * coded['gap']:+.2f} % from what the likelihood implies" in said
    assert f"a file of {coded['file_bytes']:,} bytes without the model, decoded and compared" in said
    kept = {e["measure"]: e for e in json.loads((out / "eval.json").read_text())["results"]}
    assert kept["coded_bytes"]["figure"]["value"] == found["coded_bytes"]["value"]
    page = (out / "report.html").read_text()
    assert f"{100 * coded['gap']:.2f} % more than implied" in page
    assert MEASURES["coded_bytes"].title.capitalize() in page
