"""What decoding the codes of examples restores of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from unsup.core.batch import Batch
from unsup.core.errors import CapabilityError, InputError
from unsup.core.event import Event
from unsup.core.model import CanDecode, Model
from unsup.data.source import Split
from unsup.evaluate.conditions import batches, beside, examples_in, over_examples
from unsup.evaluate.estimate import make_figure
from unsup.evaluate.features import columns_of
from unsup.evaluate.records import Figure

_AT_ONCE = 500  # examples encoded and decoded
_CONSTANT = 1e-20  # a smaller variance of a column, relative to its mean square, is rounding


def unrestored_variance(model: Model, x: Tensor | Split | Batch) -> Figure:
    """The share of the variance of examples that ``model.decode(model.encode(x))`` does not restore.

    For images and sequences it is Σ_d E[(x_d − x̂_d)²] / Σ_d Var[x_d], which is 1 − R². Columns of vectors and tables
    may have different units: there it is the mean over columns of E[(x_d − x̂_d)²] / Var[x_d]. An entry with categories
    is one column with an indicator for each of them, and columns that do not vary do not count. 0 is the example
    itself; the mean example has 1.

    Args:
        x: raw examples ``(N, *event.shape)`` without missing entries, or a split or batch of them with their
            conditions and weights.

    Returns:
        The share with its standard error over examples, for fixed variances.

    Raises:
        CapabilityError: the model does not decode.
        InputError: fewer than two examples, or examples that are all the same.

    >>> import unsup
    >>> data = unsup.load_data("moons")
    >>> unrestored_variance(unsup.create("nice", data.event), data.test.x)["value"] < 1e-6
    True
    """
    if not isinstance(model, CanDecode):
        raise CapabilityError(f"{type(model).__name__} does not decode; unsup models lists models that do")
    examples, event, coder = examples_in(x), model.event, model
    if len(examples) < 2:
        raise InputError(f"{len(examples)} examples given; a variance needs 2 or more")
    variance, squares = _moments(examples, event)
    varies = variance > _CONSTANT * squares
    if not bool(varies.any()):
        raise InputError("all examples are the same, so there is no variance to restore")

    def errors(position: int, batch: Batch) -> Tensor:
        given = beside(coder, batch.given)
        found = coder.decode(coder.encode(batch.x, **given), **given)
        pair = (columns_of(v.detach().cpu(), event) for v in (batch.x, found))
        return _by_entry(torch.sub(*pair).square(), event)

    lost = over_examples(model, examples, _AT_ONCE, errors)[:, varies]
    if event.layout == "vector":
        each = (lost / variance[varies]).mean(1)
    else:
        each = lost.sum(1) / variance[varies].sum()
    shares = _shares(examples)
    value = float((shares * each).sum())
    n = int((shares > 0).sum())
    spread = float((shares * (each - value)).square().sum())
    error = math.sqrt(n / (n - 1) * spread) if n > 1 else math.nan
    return make_figure(value, n, error=error)


def _moments(examples: Split | Batch, event: Event) -> tuple[Tensor, Tensor]:
    """The variance and the mean square of every entry, ``(D,)``, summed over its columns."""
    shares, sizes = _shares(examples), [len(batch) for batch in batches(examples, _AT_ONCE)]

    def weighted(centre: Tensor | float, power: int) -> Tensor:
        parts = zip(batches(examples, _AT_ONCE), shares.split(sizes), strict=True)
        sums = [share @ (columns_of(batch.x.detach().cpu(), event) - centre) ** power for batch, share in parts]
        return torch.stack(sums).sum(0)

    variance, squares = (_by_entry(weighted(c, 2)[None], event)[0] for c in (weighted(0.0, 1), 0.0))
    return variance, squares


def _shares(examples: Split | Batch) -> Tensor:
    """The share of each example in a mean, ``(N,)``."""
    if examples.weight is None:
        return torch.full((len(examples),), 1 / len(examples), dtype=torch.float64)
    weight = examples.weight.detach().cpu().double()
    return weight / weight.sum()


def _by_entry(columns: Tensor, event: Event) -> Tensor:
    """Sums of the columns of every entry: ``(B, columns)`` → ``(B, D)``."""
    sizes = torch.tensor([s.levels if s.kind == "nominal" else 1 for s in event.columns])
    if columns.shape[1] == len(sizes):
        return columns
    entry_of = torch.arange(len(sizes)).repeat_interleave(sizes)
    return columns.new_zeros(len(columns), len(sizes)).index_add_(1, entry_of, columns)
