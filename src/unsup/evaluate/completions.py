"""Completions of examples, and samples, with their lengths, chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, cast

import torch
from torch import Generator, Tensor

from unsup.core.batch import Batch
from unsup.core.errors import CapabilityError
from unsup.core.marginals import typical, typical_of_draws
from unsup.core.model import CanComplete, CanSample, HasLengths, KnowsMarginals, Model, has_ends, keyed_generator
from unsup.core.steps import part_of
from unsup.evaluate.conditions import beside, by_chunks, over_examples
from unsup.evaluate.samples import CHUNK

_SAMPLE, _COMPLETE = 0, 1  # keys of the noise
DRAWS = 100
"""Completions from which a mode or a mean is estimated."""

Way = Literal["mode", "mean"]

Drawn = tuple[Tensor, Tensor | None]
"""Raw examples and their lengths; None if all have full length."""


def draw(model: CanSample, n: int, generator: Generator, **options: Any) -> Drawn:
    """Samples, and their lengths if these differ."""
    if isinstance(model, HasLengths) and model.ends:
        with_lengths: Callable[..., tuple[Tensor, Tensor]] = model.sample_with_lengths
        return with_lengths(n, generator=generator, **options)
    sample: Callable[..., Tensor] = model.sample
    return sample(n, generator=generator, **options), None


def complete_examples(
    model: Model,
    examples: Batch,
    known: Tensor,
    *,
    seed: int = 0,
    before: int = 0,
    options: Mapping[str, Any] | None = None,
    on_chunk: Callable[[int, int], None] | None = None,
) -> Drawn:
    """Draw the unknown entries of raw examples, on the CPU, keyed by (seed, chunk).

    Args:
        known: which entries are known, bool of the shape of the examples.
        before: the number of chunks that were drawn before with this seed; their noise is not used again.
        options: of ``model.complete``.
    """
    assert isinstance(model, CanComplete)
    with_ends, complete = has_ends(model), cast(Callable[..., Any], model.complete)
    if isinstance(model, HasLengths) and with_ends:
        complete = model.complete_with_lengths

    def completed(position: int, part: Batch) -> Tensor:
        generator = keyed_generator(seed, _COMPLETE, before + position, device=model.device)
        own = known[position * CHUNK :][: len(part)].to(part.x.device)
        found = complete(part.x, own, generator=generator, **beside(model, part.given), **(options or {}))
        return _packed(*found) if with_ends else _plain(found)

    return _unpacked(model, over_examples(model, examples, CHUNK, completed, on_chunk), with_ends)


def fill_examples(
    model: Model,
    examples: Batch,
    known: Tensor,
    way: Way,
    *,
    seed: int = 0,
    before: int = 0,
    options: Mapping[str, Any] | None = None,
    on_chunk: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Raw examples whose unknown entries have their mode or mean given the known ones, on the CPU.

    Each entry is considered by itself: the modes need not be the most probable combination. Categories have no mean,
    so that theirs is the mode, and the mean of whole numbers is rounded. A model without `KnowsMarginals` is asked for
    `DRAWS` completions, keyed by (seed, chunk): the mean is that of the draws, the mode of levels the most frequent
    one, and that of real numbers the half-sample mode.

    Args:
        known: which entries are known, bool of the shape of the examples.
        way: ``mode`` or ``mean``.
        before: as of `complete_examples`.
        options: of ``model.complete``, where draws are needed.

    Raises:
        CapabilityError: the unknown entries decide the length.
    """
    assert isinstance(model, CanComplete)
    if has_ends(model):
        raise CapabilityError(f"{type(model).__name__} decides how long its examples are, and no length has a {way}")
    event, mean = model.event, way == "mean"

    def estimated(x: Tensor, own: Tensor, given: Mapping[str, Any], position: int) -> Tensor:
        generator = keyed_generator(seed, _COMPLETE, before + position, device=model.device)
        complete = cast(Callable[..., Tensor], model.complete)
        drawn = []
        for i in range(DRAWS):
            with part_of(i, DRAWS):
                drawn.append(complete(x, own, generator=generator, **given, **(options or {})))
        found = torch.stack([part.flatten(1) for part in drawn])  # (draws, B, D)
        each = [
            typical_of_draws(own, support, mean=mean)
            for own, support in zip(found.unbind(2), event.columns, strict=True)
        ]
        return torch.stack(each, 1)

    def filled(position: int, part: Batch) -> Tensor:
        x, own = part.x, known[position * CHUNK :][: len(part)].to(part.x.device)
        given = beside(model, part.given)
        if isinstance(model, KnowsMarginals):
            each = x.flatten(1).double().clone()
            for entry, rows, marginal in cast(Callable[..., Any], model.marginals)(x, own, **given):
                each[rows, entry] = typical(marginal, event.columns[entry], mean=mean)
        else:
            each = estimated(x, own, given, position)
        return _plain(model.kept(x, own, each.nan_to_num(0.0).view_as(x)))

    return over_examples(model, examples, CHUNK, filled, on_chunk)


def sample_with_lengths(
    model: Model,
    n: int,
    *,
    seed: int = 0,
    given: Tensor | None = None,
    options: Mapping[str, Any] | None = None,
    on_chunk: Callable[[int, int], None] | None = None,
) -> Drawn:
    """`draw_samples` of a model whose samples have different lengths, with these."""
    assert isinstance(model, HasLengths)

    def drawn(position: int, rows: slice) -> Tensor:
        generator = keyed_generator(seed, _SAMPLE, position, device=model.device)
        condition = {} if given is None else {"given": given[rows].to(model.device)}
        x, lengths = draw(model, rows.stop - rows.start, generator, **condition, **(options or {}))
        assert lengths is not None
        return _packed(x, lengths)

    return _unpacked(model, by_chunks(model, n, CHUNK, drawn, on_chunk), True)


def _plain(x: Tensor) -> Tensor:
    return x.cpu()


def _packed(x: Tensor, lengths: Tensor) -> Tensor:
    """Symbols ``(B, L)`` and their lengths as one tensor."""
    return torch.cat([x.long().cpu(), lengths.long().cpu()[:, None]], 1)


def _unpacked(model: Model, found: Tensor, with_ends: bool) -> Drawn:
    return (found[:, :-1].to(model.event.dtype), found[:, -1]) if with_ends else (found, None)
