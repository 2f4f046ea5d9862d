"""Settings: their ranges, what numbers are taken, and the two places that list them."""

from __future__ import annotations

from typing import get_type_hints

import numpy as np
import pytest
import torch
from toys import BITS, Toy, binary_data

import unsup
from unsup.core.errors import InputError
from unsup.train.settings import Settings, SettingsOptions, make_settings
from unsup.train.trainer import fit


def test_editors_complete_every_setting():
    fields = get_type_hints(Settings, include_extras=True)
    options = get_type_hints(SettingsOptions, include_extras=True)
    assert list(options.items()) == list(fields.items())
    assert SettingsOptions.__required_keys__ == frozenset()
    assert unsup.Settings is Settings


def test_every_setting_is_explained():
    about = Settings.__doc__
    for name in Settings.__dataclass_fields__:
        assert f"        {name}: " in about


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"steps": 0}, "steps=0 should be at least 1"),
        ({"steps": -3}, "steps=-3 should be at least 1"),
        ({"minutes": 0.0}, "minutes=0.0 should be above 0"),
        ({"batch_size": 0}, "batch_size=0 should be at least 1"),
        ({"accumulate": 0}, "accumulate=0 should be at least 1"),
        ({"lr": 0.0}, "lr=0.0 should be above 0"),
        ({"eps": 0.0}, "eps=0.0 should be above 0"),
        ({"lr": float("nan")}, "lr=nan should be above 0"),
        ({"warmup": -1}, "warmup=-1 should be at least 0"),
        ({"weight_decay": -0.1}, "weight_decay=-0.1 should be at least 0"),
        ({"betas": (0.9, 1.0)}, "should be from 0 to below 1"),
        ({"betas": (0.9,)}, "should have 2 values"),
        ({"ema": 1.0}, "ema=1.0 should be from 0 to below 1"),
        ({"clip": -1.0}, "clip=-1.0 should be at least 0"),
        ({"patience": -1}, "patience=-1 should be at least 0"),
        ({"validation_limit": 0}, "validation_limit=0 should be at least 1"),
        ({"optimizer": "adm"}, "optimizer='adm' should be one of 'adam'"),
        ({"steps": 2.5}, "steps=2.5 should be of type int"),
        ({"compile": 1}, "compile=1 should be of type bool"),
    ],
)
def test_what_is_out_of_range_is_refused(given, told):
    for build in (lambda: Settings(**given), lambda: make_settings(Toy, given)):
        with pytest.raises(InputError) as error:
            build()
        assert told in str(error.value)


def test_numbers_of_numpy_are_numbers():
    settings = Settings(steps=np.int64(2), lr=np.float32(0.5), betas=(np.float64(0.5), 0.9), accumulate=np.uint8(2))
    assert settings == Settings(steps=2, lr=0.5, betas=(0.5, 0.9), accumulate=2)
    assert type(settings.steps) is int
    fitted = fit(Toy(BITS), binary_data(), steps=np.int64(2), lr=np.float32(0.01), progress="off")
    assert fitted.steps == 2
    data = unsup.from_arrays(np.random.default_rng(0).normal(size=(50, 3)))
    assert unsup.create("gaussian-mixture", data.event, components=np.int64(3)).config["components"] == 3


def test_settings_of_the_model_come_before_the_trainers():
    class Fast(Toy):
        fit_defaults = {"lr": 0.5, "epochs": 3}

    assert make_settings(Fast, {}).lr == 0.5
    assert make_settings(Fast, {"lr": 0.1}).epochs == 3
    assert make_settings(Fast, {"steps": 4}).epochs is None


@pytest.mark.parametrize("seed", [2**70, 2**64, -(2**80), 2**63])
def test_a_seed_may_be_any_whole_number(seed, tmp_path):
    found = []
    for name in ("a", "b"):
        model = unsup.create("made", BITS, preset="tiny", seed=seed)
        fit(model, binary_data(), out=tmp_path / name, steps=2, seed=seed, progress="off")
        found.append(model.state_dict())
    other = unsup.create("made", BITS, preset="tiny", seed=seed + 1).state_dict()
    assert all(torch.equal(found[0][k], found[1][k]) for k in found[0])
    fresh = unsup.open_run(tmp_path / "a").new_model().state_dict()
    assert any(not torch.equal(fresh[k], other[k]) for k in fresh)


def test_fit_says_what_it_expected():
    data = unsup.load_data("digits")
    with pytest.raises(InputError, match=r"given the name 'made' .*; expected unsup.fit\(unsup.create\('made', data\)"):
        unsup.fit("made", data)
    with pytest.raises(InputError, match="given a Data for the model"):
        unsup.fit(data, unsup.create("made", data.event, preset="tiny"))
    with pytest.raises(InputError, match="load_data was given an int"):
        unsup.fit(unsup.create("made", data.event, preset="tiny"), 3)
