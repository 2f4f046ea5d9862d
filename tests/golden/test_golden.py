"""The library computes what it computed when ``golden.json.gz`` was recorded, to a relative 1e-10.

The goldens are those of ``scripts/golden.py``; record them anew only for a change of numbers that is meant. A change of
names goes into `RENAMED`, a change of numbers into `CHANGED` first.
"""

from __future__ import annotations

import importlib.util
import math
import re
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

# Names of parameters and buffers that are no longer what they were: for each model, or "*" for all of them,
# (regular expression of the whole new name, the old name, in which \1 … are its groups). The first that fits counts.
# {"made": [(r"net\.(\d+)\.linear\.(.*)", r"layers.\1.\2")]}
# An old name NAME[i] is entry i of a vector of parameters that are single ones now.
RENAMED: dict[str, list[tuple[str, str]]] = {
    "gaussian-mixture": [(r"gaussians\.(.*)", r"\1")],
    "made": [(r"net\.(.*)", r"\1"), (r"observation\.(front\..*)", r"\1")],
    "vae": [(r"nets\.(.*)", r"\1")],
    "pixelcnn": [(r"blocks\.(\d+)\.shift\.weight", r"blocks.\1.label_bias.weight")],
}

# Numbers that are meant to differ, each with its reason: (model, quantity). A quantity is a path as failures print it,
# from its number if it is only one case that differs; in both * stands for anything.
# {("vae", "loss_*/model/terms/kl"): "in bits now", ("vae", "3/fit_sgd/*"): "…", ("vae", "7/case"): "the case is gone"}
_ENTRY_BY_ENTRY = "one-hot inputs lie entry by entry, no longer level by level: weights drawn by name meet other inputs"
CHANGED: dict[tuple[str, str], str] = {
    ("vae", "4/prepared/*"): "the frequencies of levels are counted in the model's type, no longer in float32",
    **{
        ("vae", f"4/{q}/*"): _ENTRY_BY_ENTRY
        for q in ("log_prob", "code", "loss_train", "loss_eval", "fit_sgd", "fit_adam")
    },
    ("pixelcnn", "5/loss_eval/*"): "in evaluation mode too the loss is given the condition where the batch has one",
    ("pixelcnn", "5/fit_*/nats"): "validation is given the condition where the data has one",
}

TOLERANCE = 1e-10  # of the size of what a number is made of
# Initial values are float32; processors and versions of torch other than those that recorded draw other last digits.
INITIAL_ELSEWHERE = 1e-6
SMALLEST = 1e-3  # a number below this is held to 1e-10 of this: it may be what is left of two that cancel
SMALLEST_GRADIENT = 1e-4  # the same, of the largest gradient of a player

ROOT = Path(__file__).parents[2]


def _recorder() -> ModuleType:
    specification = importlib.util.spec_from_file_location("unsup_golden", ROOT / "scripts" / "golden.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module  # dataclasses look their module up
    specification.loader.exec_module(module)
    return module


golden = _recorder()
RECORDED = golden.read(Path(__file__).with_name("golden.json.gz"))
MODELS = {entry["model"] for entry in RECORDED["cases"].values()}
CASES = {golden.describe(case): case for _, case in golden.cases() if case.model in MODELS}


def old_name(model: str, name: str) -> str:
    for pattern, old in (*RENAMED.get(model, ()), *RENAMED.get("*", ())):
        if re.fullmatch(pattern, name):
            return re.sub(pattern, old, name)
    return name


def reason_for(model: str, index: int, path: str) -> str | None:
    """Why a quantity may differ, if it may."""
    for (owner, pattern), reason in CHANGED.items():
        if owner == model and (fnmatchcase(path, pattern) or fnmatchcase(f"{index}/{path}", pattern)):
            return reason
    return None


def leaves(recorded: Any, path: str = "") -> Iterator[str]:
    """The paths of everything that is compared."""
    if isinstance(recorded, dict) and "shape" not in recorded and "norm" not in recorded:
        for name, value in recorded.items():
            yield from leaves(value, f"{path}/{name}" if path else name)
    else:
        yield path


def differences(recorded: Any, found: Any, tolerance: float, path: str = "", floor: float = SMALLEST) -> Iterator[Any]:
    """(path, what differs) of every quantity that was recorded; what is new is not looked at."""
    if isinstance(recorded, dict) and isinstance(found, dict) and "raised" in found:
        yield from ((place, f"raised {found['raised']}") for place in leaves(recorded, path))
    elif isinstance(recorded, dict) and "shape" not in recorded and "norm" not in recorded:
        if path.endswith("/gradient"):
            floor = SMALLEST_GRADIENT * max((g["norm"] for g in recorded.values()), default=0.0)
        for name, value in recorded.items():
            place = f"{path}/{name}" if path else name
            if isinstance(found, dict) and name in found:
                yield from differences(value, found[name], tolerance, place, floor)
            else:
                yield from ((leaf, "recorded, and not found") for leaf in leaves(value, place))
    else:
        told = _difference(recorded, found, tolerance, floor)
        if told:
            yield path, told


def _difference(recorded: Any, found: Any, tolerance: float, floor: float) -> str:
    if isinstance(recorded, dict) and isinstance(found, dict):
        for key in ("type", "shape", "infinite"):
            if recorded.get(key) != found.get(key):
                return f"{key} recorded {recorded.get(key)}, found {found.get(key)}"
        if "values" in recorded:
            scale = max((abs(v) for v in recorded["values"] if math.isfinite(v)), default=0.0)
            pairs = enumerate(zip(recorded["values"], found["values"], strict=True))
            told = [_number(*pair, tolerance * max(scale, floor), f"entry {i} ") for i, pair in pairs]
        else:
            scale = max(recorded["norm"] if "norm" in recorded else recorded["size"], floor)
            told = [
                _number(recorded[key], found[key], tolerance * scale, f"{key} ")
                for key in ("norm", "sum", "dot")
                if key in recorded
            ]
        return "; ".join(filter(None, told))
    if isinstance(recorded, float | int) and isinstance(found, float | int):
        return _number(recorded, found, tolerance * max(abs(recorded), floor), "")
    return "" if recorded == found else f"recorded {recorded!r}, found {found!r}"


def _number(recorded: float, found: float, allowed: float, what: str) -> str:
    if recorded == found or (math.isnan(recorded) and math.isnan(found)) or abs(recorded - found) <= allowed:
        return ""
    return f"{what}recorded {recorded!r}, found {found!r}, off by {abs(recorded - found):.2g} (allowed {allowed:.2g})"


def _named(entry: dict[str, Any]) -> str:
    return f"{entry['model']}-{entry['index']}"


def _parameter(told: str, entry: dict[str, Any]) -> Any:
    """A case; those after the first of its model are slow tests."""
    return pytest.param(told, id=_named(entry), marks=[pytest.mark.slow] if entry["index"] else [])


@pytest.mark.parametrize("told", [_parameter(k, entry) for k, entry in RECORDED["cases"].items()])
def test_numbers_are_those_recorded(told: str) -> None:
    recorded = RECORDED["cases"][told]
    model, index = recorded["model"], recorded["index"]
    if told not in CASES:
        reason = reason_for(model, index, "case")
        if reason is not None:
            pytest.skip(reason)
        pytest.fail(f"{told} was recorded as case {index} of {model} and is no case now")
    found = golden.record(CASES[told], lambda name: old_name(model, name), recorded)
    tolerances = dict.fromkeys((q.__name__ for q in golden.QUANTITIES), TOLERANCE)
    if golden.machine() != RECORDED["machine"]:
        tolerances["initial"] = INITIAL_ELSEWHERE
    hidden = set(found["transient"])  # buffers that are no longer saved
    wrong = [
        f"{path}: {what}"
        for name, tolerance in tolerances.items()
        for path, what in differences(recorded.get(name, {}), found.get(name, {}), tolerance, name)
        if reason_for(model, index, path) is None and path.rpartition("/")[2] not in hidden
    ]
    if wrong:
        pytest.fail(f"{told} ({_named(recorded)}): {len(wrong)} quantities differ\n" + "\n".join(wrong), pytrace=False)


def test_every_change_that_is_listed_is_of_something_recorded() -> None:
    places = {
        (entry["model"], place)
        for entry in RECORDED["cases"].values()
        for q in golden.QUANTITIES
        for path in ("case", *leaves(entry.get(q.__name__, {}), q.__name__))
        for place in (path, f"{entry['index']}/{path}")
    }
    for model, pattern in CHANGED:
        assert any(owner == model and fnmatchcase(place, pattern) for owner, place in places), (model, pattern)
