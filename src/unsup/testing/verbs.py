"""All methods of a model on some examples, as calls without arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from unsup.core.model import (
    CanComplete,
    CanDecode,
    CanEncode,
    CanSample,
    Classifies,
    Factorises,
    HasDensity,
    HasEnergy,
    HasLatents,
    HasScore,
    IsAutoregressive,
    IsConditional,
    IsFlow,
    Model,
    Translates,
)
from unsup.testing.subject import Subject

Answer = tuple[Tensor, ...]


def answers(model: Model, x: Tensor, subject: Subject) -> dict[str, Answer]:
    """The results of all methods on ``x``, with the same noise each time, without a graph."""
    with torch.no_grad():
        return {name: verb() for name, verb in verbs(model, x, subject).items()}


def verbs(model: Model, x: Tensor, subject: Subject, *, given: Tensor | None = None) -> dict[str, Callable[[], Answer]]:
    """The methods of the capabilities of the model, on the examples ``x``, which may be empty.

    A conditional model gets the conditions of the examples, or ``given``, and also no condition if it does not need
    one.
    """
    n, told = len(x), subject.given(len(x)) if given is None else {"given": given}
    found: dict[str, Callable[[], Answer]] = {}

    def verb(name: str, call: Callable[..., Any], *arguments: Any, noise: bool = True, **options: Any) -> None:
        def ask() -> Answer:
            drawn = {"generator": subject.generator(100)} if noise else {}
            said = call(*arguments, **drawn, **options)
            return said if isinstance(said, tuple) else () if said is None else (said,)

        found[name] = ask

    marginal = isinstance(model, IsConditional) and model.classes > 0
    if isinstance(model, HasDensity):
        verb("log_prob", model.log_prob, x, **told)
        if marginal:
            verb("log_prob without a class", model.log_prob, x)
    if isinstance(model, Factorises):
        verb("log_conditionals", model.log_conditionals, x, **told)
    if isinstance(model, CanSample):
        verb("sample", model.sample, n, **told)
        if marginal:
            verb("sample without a class", model.sample, n)
    if isinstance(model, IsAutoregressive):
        verb("sample_naive", model.sample_naive, n, **told)
        verb("conditionals", model.conditionals, x.to(model.dtype), noise=False, **told)
    if isinstance(model, CanComplete):
        verb("complete", model.complete, x, torch.zeros_like(x, dtype=torch.bool), **told)
    if isinstance(model, CanEncode):
        verb("encode", model.encode, x, noise=False, **told)
    if isinstance(model, CanDecode):
        codes = torch.randn(n, model.code_size, generator=subject.generator(101), dtype=model.dtype, device=x.device)
        verb("decode", model.decode, codes, noise=False, **told)
    if isinstance(model, HasEnergy):
        verb("energy", model.energy, x, noise=False, **told)
    if isinstance(model, HasScore):
        verb("score", model.score, x.to(model.dtype), noise=False, **told)
    if isinstance(model, Classifies) and (marginal or not isinstance(model, IsConditional)):
        verb("predict_proba", model.predict_proba, x, noise=False)
    if isinstance(model, Translates):
        verb("translate to b", partial(model.translate, to="b"), x, noise=False)
        verb("translate to a", partial(model.translate, to="a"), x, noise=False)
    if isinstance(model, IsFlow):
        verb("transform", model.transform, x.to(model.dtype), noise=False, **told)
        z = torch.randn(n, model.event.dims, generator=subject.generator(102), dtype=model.dtype, device=x.device)
        verb("invert", model.invert, z, noise=False, **told)
    if isinstance(model, HasLatents):
        batch = replace(subject.batch.take(slice(0, n)), x=x)
        verb("draw_latents", model.draw_latents, batch)
    return found
