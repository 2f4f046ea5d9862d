"""Laws of every model: its configuration, its files, its state, its manners."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from unsup.core.config import options_of, plain
from unsup.core.errors import InputError
from unsup.core.model import (
    CanComplete,
    CanDecode,
    CanEncode,
    CanSample,
    HasDensity,
    HasEnergy,
    IsFlow,
    Model,
    Translates,
)
from unsup.core.registry import row_of
from unsup.core.storage import load_model
from unsup.testing.law import law, require
from unsup.testing.subject import Subject, perturb, rebuild, same_state

_FILES = {".json", ".safetensors", ".md"}


def _is_registered(model: Model) -> bool:
    return row_of(type(model)) is not None


def _outputs(model: Model, x: Tensor, subject: Subject) -> dict[str, Tensor]:
    """Everything that the model says about ``x``, from the same noise each time."""
    found = {}
    with torch.no_grad():
        if isinstance(model, HasDensity):
            found["log_prob"] = model.log_prob(x, generator=subject.generator(1))
        if isinstance(model, CanSample):
            found["sample"] = model.sample(5, generator=subject.generator(2))
        if isinstance(model, CanEncode):
            found["encode"] = model.encode(x)
        if isinstance(model, HasEnergy):
            found["energy"] = model.energy(x)
        if isinstance(model, Translates):
            found["translate"] = model.translate(x, to="b")
    return found


@law("configuration", "The configuration survives JSON and rebuilds the model; an unknown option names the nearest.")
def configuration(subject: Subject) -> None:
    model = subject.model
    cls, config = type(model), json.loads(json.dumps(plain(model.config)))
    again = cls(model.event, **config)
    require(again.config == model.config, f"{again.config} came back for {model.config}")
    shapes = [{k: v.shape for k, v in m.state_dict().items()} for m in (model, again)]
    require(shapes[0] == shapes[1], "the same configuration gave tensors of other names or shapes")
    known = options_of(cls.__init__)
    misspelt = max(known, key=len)[:-1] + "_" if known else "anything"
    try:
        cls(model.event, **{misspelt: 1})
    except InputError as error:
        require(any(name in str(error) for name in known) or not known, f"{error}: names no known option")
    else:
        require(False, f"the unknown option {misspelt!r} was taken without a word")


@law(
    "save-load",
    "A saved model loads with the same state, scores and samples; its folder holds no pickle.",
    needs="a registered model",
    applies=_is_registered,
)
def save_load(subject: Subject) -> None:
    model = subject.generic(dtype=None)
    with tempfile.TemporaryDirectory() as folder:
        model.save(folder)
        odd = sorted(p.name for p in Path(folder).rglob("*") if p.is_file() and p.suffix not in _FILES)
        require(not odd, f"the folder holds {odd}")
        loaded = load_model(folder)
    require(type(loaded) is type(model), f"a {type(model).__name__} came back as a {type(loaded).__name__}")
    differs = same_state(model.cpu(), loaded)
    require(differs is None, f"{differs} differs after loading")
    before, after = (_outputs(m, subject.batch.x.cpu(), subject) for m in (model, loaded))
    for name, value in before.items():
        require(torch.equal(value, after[name]), f"{name} differs after loading, although the saved state is the same")


@law("state", "Scoring, sampling and encoding leave every tensor of the model as it was.")
def state(subject: Subject) -> None:
    model = subject.generic()
    untouched = {k: v.clone() for k, v in model.state_dict().items()}
    _outputs(model, subject.x(model), subject)
    moved = [k for k, v in model.state_dict().items() if not torch.equal(v, untouched[k])]
    require(not moved, f"{moved[:3]} moved")
    require(not model.training, "the model went back into training mode")


@law("no-memory", "What a model says depends on its state alone: none of it is left from before its parameters moved.")
def no_memory(subject: Subject) -> None:
    model = subject.generic()
    x = subject.x(model)
    _outputs(model, x, subject)
    perturb(model, subject.generator(3))
    moved = _outputs(model, x, subject)
    twin = rebuild(model).to(model.dtype).eval()
    twin.load_state_dict(model.state_dict())
    for name, value in _outputs(twin, x, subject).items():
        require(
            torch.allclose(value.double(), moved[name].double(), rtol=1e-9, atol=1e-9),
            f"{name} differs from that of a new model with the same state",
        )


@law(
    "global-random-state", "With a generator given, scoring, sampling and completing leave the global generator alone."
)
def global_random_state(subject: Subject) -> None:
    model = subject.generic()
    before = torch.random.get_rng_state()
    _outputs(model, subject.x(model), subject)
    if isinstance(model, CanComplete):
        x = subject.x(model)
        known = torch.zeros_like(x, dtype=torch.bool)
        model.complete(x, known, generator=subject.generator(3))
    require(torch.equal(before, torch.random.get_rng_state()), "the global generator moved")


@law(
    "wrong-shape",
    "Examples of another shape are refused with an InputError.",
    needs="log_prob or encode",
    applies=lambda model: isinstance(model, (HasDensity, CanEncode)),
)
def wrong_shape(subject: Subject) -> None:
    model = subject.generic()
    x = subject.x(model)
    calls: dict[str, Callable[[Tensor], Tensor]] = {}
    if isinstance(model, HasDensity):
        calls["log_prob"] = model.log_prob
    if isinstance(model, CanEncode):
        calls["encode"] = model.encode
    for name, call in calls.items():
        for what, wrong in (("twice the width", torch.cat([x, x], -1)), ("no batch axis", x[0])):
            _refused(f"{name} of x with {what} {tuple(wrong.shape)}", call, wrong)


def _refused(what: str, call: Callable[[Tensor], Tensor], wrong: Tensor) -> None:
    try:
        call(wrong)
    except InputError:
        return
    except (RuntimeError, LookupError, TypeError, ValueError) as error:
        require(False, f"{what} raised {type(error).__name__}, not an InputError that says what was expected")
    require(False, f"{what} was taken without a word")


@law(
    "encode",
    "Features are finite, of shape (B, F) and a function of each example alone; decoding gives examples of the event.",
    needs="encode",
    applies=lambda model: isinstance(model, CanEncode),
)
def encode(subject: Subject) -> None:
    model = subject.generic()
    assert isinstance(model, CanEncode)
    x = subject.x(model)[:16]
    with torch.no_grad():
        z = model.encode(x)
        require(z.ndim == 2 and len(z) == len(x), f"features of {tuple(x.shape)} have shape {tuple(z.shape)}")
        require(bool(z.isfinite().all()), "features are not finite")
        require(torch.equal(z, model.encode(x)), "encoding twice gave two answers")
        single = torch.cat([model.encode(one[None]) for one in x])
        worst = float((z - single).abs().max())
        require(
            worst <= 1e-9 * max(1.0, float(z.abs().max())), f"features depend on the rest of the batch, by {worst:.2g}"
        )
        if isinstance(model, CanDecode):
            back = model.decode(z)
            expected = (len(x), *model.event.shape)
            require(tuple(back.shape) == expected, f"decoding gave shape {tuple(back.shape)}, not {expected}")
            require(back.dtype == model.event.dtype, f"decoding gave {back.dtype}, not {model.event.dtype}")
            require(bool(model.event.contains(back).all()), "decoding gave values outside the support")
            if isinstance(model, IsFlow):
                # A flow loses nothing but the rounding of raw reals to float32.
                close = torch.allclose(back.double(), x.double(), rtol=1e-5, atol=1e-5 * float(x.double().abs().max()))
                require(close, "decode(encode(x)) is not x, although a flow is invertible")
