"""Laws of all models: configuration, files, state, and errors."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unsup.core.config import options_of, plain
from unsup.core.errors import InputError
from unsup.core.model import CanDecode, CanEncode, HasDensity, IsFlow, Model
from unsup.core.registry import row_of
from unsup.core.storage import load_model
from unsup.testing.law import law, require
from unsup.testing.subject import Subject, perturb, rebuild, same_state
from unsup.testing.verbs import answers, verbs

_FILES = {".json", ".safetensors", ".md"}
_EXAMPLES = 16


def is_registered(model: Model) -> bool:
    return row_of(type(model)) is not None


@law(
    "configuration",
    "The configuration can be stored as JSON and rebuilds the model; errors about unknown options name the nearest.",
)
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
        require(False, f"the unknown option {misspelt!r} was accepted without an error")


@law(
    "save-load",
    "A saved model, of float32 or float64, loads with the same state, scores and samples; its folder has no pickle.",
    needs="a registered model",
    applies=is_registered,
)
def save_load(subject: Subject) -> None:
    for dtype in (None, torch.float64):
        model = subject.generic(dtype=dtype)
        with tempfile.TemporaryDirectory() as folder:
            model.save(folder)
            odd = sorted(p.name for p in Path(folder).rglob("*") if p.is_file() and p.suffix not in _FILES)
            require(not odd, f"the folder has {odd}")
            loaded = load_model(folder)
        require(type(loaded) is type(model), f"a {type(model).__name__} came back as a {type(loaded).__name__}")
        require(loaded.dtype == model.dtype, f"a model in {model.dtype} came back in {loaded.dtype}")
        differs = same_state(model.cpu(), loaded)
        require(differs is None, f"{differs} differs after loading")
        before, after = (answers(m, subject.batch.x[:_EXAMPLES].cpu(), subject) for m in (model, loaded))
        for name, value in before.items():
            same = all(torch.equal(a, b) for a, b in zip(value, after[name], strict=True))
            require(same, f"{name} differs after loading, although the saved state is the same")


@law("state", "Scoring, sampling and encoding do not change any tensor of the model.")
def state(subject: Subject) -> None:
    model = subject.generic()
    untouched = {k: v.clone() for k, v in model.state_dict().items()}
    answers(model, subject.x(model)[:_EXAMPLES], subject)
    moved = [k for k, v in model.state_dict().items() if not torch.equal(v, untouched[k])]
    require(not moved, f"{moved[:3]} changed")
    require(not model.training, "the model went back into training mode")


@law(
    "no-memory", "Results depend on the current state alone: nothing is cached from before a change of the parameters."
)
def no_memory(subject: Subject) -> None:
    model = subject.generic()
    x = subject.x(model)[:_EXAMPLES]
    answers(model, x, subject)
    perturb(model, subject.generator(3))
    moved = answers(subject.ready(model), x, subject)
    twin = rebuild(model).to(model.dtype).eval()
    twin.load_state_dict(model.state_dict())
    for name, value in answers(twin, x, subject).items():
        for one, other in zip(value, moved[name], strict=True):
            require(
                torch.allclose(one.double(), other.double(), rtol=1e-9, atol=1e-9),
                f"{name} differs from that of a new model with the same state",
            )


@law("global-random-state", "With a given generator, scoring, sampling and completing do not use the global generator.")
def global_random_state(subject: Subject) -> None:
    model = subject.generic()
    before = torch.random.get_rng_state()
    answers(model, subject.x(model)[:_EXAMPLES], subject)
    require(torch.equal(before, torch.random.get_rng_state()), "the global generator was used")


@law(
    "wrong-shape",
    "Examples of wrong shape and codes of wrong size are refused with an InputError; arrays in place of tensors too, "
    "except by log_prob, which converts them.",
    needs="log_prob or encode",
    applies=lambda model: isinstance(model, (HasDensity, CanEncode)),
)
def wrong_shape(subject: Subject) -> None:
    model = subject.generic()
    x = subject.x(model)
    given = subject.given(1)
    if isinstance(model, HasDensity):
        _refuses_others("log_prob", lambda x: model.log_prob(x, **subject.one_given()), x, arrays=False)
    if isinstance(model, CanEncode):
        _refuses_others("encode", lambda x: model.encode(x, **given), x)
    if isinstance(model, CanDecode):
        with torch.no_grad():
            z = model.encode(x, **given)
        _refuses_others("decode", lambda z: model.decode(z, **given), z)


def _refuses_others(name: str, call: Callable[[Any], Tensor], right: Tensor, *, arrays: bool = True) -> None:
    others: dict[str, Any] = {"twice the width": torch.cat([right, right], -1), "no batch axis": right[0]}
    if arrays:
        others["a NumPy array"] = right.cpu().numpy()
    for what, wrong in others.items():
        _refused(f"{name} of {what} {tuple(wrong.shape)}", call, wrong)


def _refused(what: str, call: Callable[[Any], Tensor], wrong: Any) -> None:
    try:
        call(wrong)
    except InputError:
        return
    except (RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
        require(False, f"{what} raised {type(error).__name__}, not an InputError that says what was expected")
    require(False, f"{what} was accepted without an error")


@law(
    "no-examples", "For an empty batch, or zero samples, all methods return empty results of the usual shape and type."
)
def no_examples(subject: Subject) -> None:
    model = subject.generic()
    x = subject.x(model)
    two = answers(model, x[:2], subject)
    for name, verb in verbs(model, x[:0], subject).items():
        with torch.no_grad():
            try:
                found = verb()
            except (RuntimeError, LookupError, TypeError, ValueError) as error:
                require(False, f"{name} of no examples raised {type(error).__name__}: {str(error).splitlines()[0]}")
        for none, usual in zip(found, two[name], strict=True):
            expected = (0, *usual.shape[1:])
            require(
                tuple(none.shape) == expected, f"{name} of an empty batch has shape {tuple(none.shape)}, not {expected}"
            )
            require(none.dtype == usual.dtype, f"{name} of an empty batch is {none.dtype}, not {usual.dtype}")


@law("inference-mode", "All methods give the same results under torch.inference_mode(), and afterwards.")
def inference_mode(subject: Subject) -> None:
    model = subject.generic()
    x = subject.x(model)[:_EXAMPLES]
    usual = answers(model, x, subject)
    with torch.inference_mode():
        inside = {}
        for name, verb in verbs(model, x.clone(), subject).items():
            try:
                inside[name] = verb()
            except RuntimeError as error:
                require(False, f"{name} raised {type(error).__name__}: {str(error).splitlines()[0]}")
    after = answers(model, x, subject)
    for name, value in usual.items():
        for when, others in (("under inference_mode", inside), ("after inference_mode", after)):
            same = all(torch.equal(a, b.clone()) for a, b in zip(value, others[name], strict=True))
            require(same, f"{name} differs {when}")
    if isinstance(model, HasDensity):
        try:
            found = model.log_prob(x, generator=subject.generator(1), **subject.given(len(x)))
            if found.requires_grad:
                found.sum().backward()
        except RuntimeError as error:
            require(False, f"no gradient of log_prob after inference_mode: {str(error).splitlines()[0]}")


@law(
    "encode",
    "Features are finite, of shape (B, F) and a function of each example alone; decoding gives examples of the event.",
    needs="encode",
    applies=lambda model: isinstance(model, CanEncode),
)
def encode(subject: Subject) -> None:
    model = subject.generic()
    assert isinstance(model, CanEncode)
    x = subject.x(model)[:_EXAMPLES]
    given = subject.given(len(x))
    with torch.no_grad():
        z = model.encode(x, **given)
        require(z.ndim == 2 and len(z) == len(x), f"features of {tuple(x.shape)} have shape {tuple(z.shape)}")
        require(bool(z.isfinite().all()), "features are not finite")
        require(torch.equal(z, model.encode(x, **given)), "encoding twice gave different results")
        rows = [{k: v[i : i + 1] for k, v in given.items()} for i in range(len(x))]
        single = torch.cat([model.encode(one[None], **row) for one, row in zip(x, rows, strict=True)])
        worst = float((z - single).abs().max())
        require(
            worst <= 1e-9 * max(1.0, float(z.abs().max())), f"features depend on the rest of the batch, by {worst:.2g}"
        )
        if isinstance(model, CanDecode):
            require(model.code_size == z.shape[1], f"code_size is {model.code_size}, codes have {z.shape[1]} numbers")
            back = model.decode(z, **given)
            expected = (len(x), *model.event.shape)
            require(tuple(back.shape) == expected, f"decoding gave shape {tuple(back.shape)}, not {expected}")
            require(back.dtype == model.event.dtype, f"decoding gave {back.dtype}, not {model.event.dtype}")
            require(bool(model.event.contains(back).all()), "decoding gave values outside the support")
            if isinstance(model, IsFlow):
                # A flow only loses the rounding of raw reals to float32.
                close = torch.allclose(back.double(), x.double(), rtol=1e-5, atol=1e-5 * float(x.double().abs().max()))
                require(close, "decode(encode(x)) is not x, although a flow is invertible")
