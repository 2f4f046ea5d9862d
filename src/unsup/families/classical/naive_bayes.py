"""Naive Bayes: the columns are independent given the class.

    p(y, x) = p(y) Π_d p(x_d | y)

A discrete column has smoothed frequencies in every class, a real column a Gaussian:

    p(x_d = v | y) = (n_yv + α) / (n_y + α K_d),    p(x_d | y) = N(x_d; μ_yd, σ²_yd + ε)

where n_yv of the n_y examples of class y with a value in column d have the level v of K_d, μ and σ² are the mean and
the variance of the column in the class, and ε is 1e-9 of the largest variance of a column. A missing entry is a factor
that is dropped, which integrates it out. For two classes and binary columns, log p(1 | x) / p(0 | x) is linear in x: a
logistic regression whose weights are counted. As a classifier: Maron 1961, https://doi.org/10.1145/321075.321084; the
standard text is Duda, Hart 1973. The smoothing and the floor of the variances are those of scikit-learn.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import accumulate

import torch
from torch import Generator, Tensor
from torch.nn.functional import embedding_bag

from unsup.core import random
from unsup.core.batch import Batch
from unsup.core.config import Weight
from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.core.model import (
    Advice,
    CanSample,
    ChooseEntry,
    ClassifiesByBayes,
    CodesEntries,
    Factorises,
    KnowsMarginals,
    Marginal,
    Terms,
)
from unsup.core.steps import in_steps
from unsup.nn.counting import Counting
from unsup.nn.intervals import GaussianIntervals
from unsup.prob import distributions as dist

_FLOOR = 1e-9  # of the largest variance
_MOST_LEVELS = 2**16  # of a discrete column
_ROWS = 512  # of real columns at a time


class NaiveBayes(Counting, ClassifiesByBayes, Factorises, CanSample, KnowsMarginals, CodesEntries):
    """p(y) Π_d p(x_d | y), counted in one pass (Maron 1961; Duda, Hart 1973); all operations are exact.

    With ``given=labels(K)`` it is p(x | y) with the counted p(y): `predict_proba` is p(y | x) by Bayes' rule, and
    without a condition p(x) = Σ_y p(y) p(x | y). Built without a condition, it has one class, so that all columns are
    independent. There is nothing to choose but α; the ``paper`` preset is the default.

    A class without an example that has a value in a real column takes the mean and the variance of all examples.
    Where ``smoothing`` is 0 and no class allows an example, p(x) = 0 and p(y | x) is p(y).

    Args:
        event: any event; each entry is a column.
        smoothing: α, added to the count of every level in every class; 0 is maximum likelihood, where a level that a
            class never had is impossible in it.
        given: the class: ``labels(K)``, e.g. ``data.given``.

    Raises:
        InputError: a condition that is not a class.

    >>> import torch
    >>> from unsup import Batch, Event, Support
    >>> from unsup.core.event import labels
    >>> model = NaiveBayes(Event((2,), Support("binary")), given=labels(2))
    >>> x, y = torch.tensor([[0, 0], [0, 1], [1, 1], [1, 1]]), torch.tensor([0, 0, 1, 1])
    >>> model.maximize(model.statistics(Batch(x, given=y)))
    >>> [round(p, 4) for p in model.predict_proba(torch.tensor([[1, 1]]))[0].tolist()]
    [0.1818, 0.8182]
    """

    presets = {"tiny": {}, "paper": {}}
    autocast = False
    takes_missing = True
    marginalises = True
    not_in_half = "its sums over the columns are in float64"

    log_mass: Tensor
    centre: Tensor
    mean: Tensor
    variance: Tensor
    log_prior: Tensor | None

    def __init__(self, event: Event, *, smoothing: Weight = 1.0, given: Event | None = None) -> None:
        self.smoothing = smoothing
        self.take_condition(given)
        if given is not None and not self.classes:
            raise InputError(
                f"NaiveBayes is conditioned on a class, but the condition is {given}; use one label per example "
                "(given=labels(K); of a table: --label COLUMN --given label), or a model that takes any condition: "
                "made, spline-flow"
            )
        if self.log_prior is not None:
            self.log_prior = self.log_prior.double()
        self.take_passes(1)
        columns, real = event.columns, torch.float64
        self.whole = [d for d, s in enumerate(columns) if s.is_discrete]
        self.real = [d for d, s in enumerate(columns) if not s.is_discrete]
        self.sizes = [columns[d].levels for d in self.whole]
        self.binary = event.uniform is not None and event.uniform.kind == "binary" and not event.missing
        starts = [end - size for size, end in zip(self.sizes, accumulate(self.sizes), strict=True)]
        low = torch.tensor([columns[d].low for d in self.whole], dtype=torch.int64)
        # Level numbers of all discrete columns lie side by side, S in total.
        self.register_buffer("offset", torch.tensor(starts, dtype=torch.int64), persistent=False)
        self.register_buffer("shift", self.get_buffer("offset") - low, persistent=False)
        each = torch.tensor(self.sizes, dtype=torch.int64)
        self.register_buffer("size", each.repeat_interleave(each).to(real), persistent=False)  # K_d of each level, (S,)
        column = torch.arange(len(self.sizes)).repeat_interleave(each)
        self.register_buffer("column", column, persistent=False)  # of each level, (S,)
        classes, reals = max(self.classes, 1), len(self.real)
        self.register_buffer("log_mass", -self.get_buffer("size").log().repeat(classes, 1))  # log p(v | y), (K, S)
        self.register_buffer("centre", torch.zeros(reals, dtype=real))  # near which real columns are summed
        self.register_buffer("mean", torch.zeros(classes, reals, dtype=real))
        self.register_buffer("variance", torch.ones(classes, reals, dtype=real))

    @classmethod
    def reason_against(cls, event: Event) -> str | None:
        if any(s.levels > _MOST_LEVELS for s in event.columns):
            return f"counts at most {_MOST_LEVELS:,} levels per column; use such whole numbers as real numbers"
        return None

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        """It takes part in a contest only if it is named: without classes its columns are independent."""
        return Advice(turn=None)

    @property
    def n_free(self) -> int:
        """The free masses of every column, and a mean and a variance of each real one, in every class; and p(y)."""
        each = sum(self.sizes) - len(self.sizes) + 2 * len(self.real)
        return max(self.classes, 1) * (each + 1) - 1

    # --- counting -------------------------------------------------------------------------------------------------

    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        """Count the classes, and set the centres of real columns, so that sums of squares keep their precision."""
        self.condition_or_none(batch.given, len(batch))
        if self.given is not None:
            self.count_condition(batch)
        if self.real:
            x = self._reals(batch.x.flatten(1)).double()
            self.centre.copy_(x.nanmean(0).nan_to_num(0.0) if self.event.missing else x.mean(0))

    @torch.no_grad()
    def statistics(self, batch: Batch, *, generator: Generator | None = None) -> dict[str, Tensor]:
        """Sums over the examples of each class: ``classes`` (n_y), ``counts`` (n_yv), ``sums`` of real columns.

        ``sums`` are the number of values, Σ (x − c) and Σ (x − c)², with the centre c: ``(K, 3, R)``.
        """
        flat, n = batch.x.flatten(1), len(batch)
        weight = None if batch.weight is None else batch.weight.double()
        label = self.condition_or_none(batch.given, n)
        y = flat.new_zeros(n, dtype=torch.int64) if label is None else label.long()
        classes = y.bincount(weight, minlength=len(self.log_mass)).double()
        found = {"count": classes.sum(), "classes": classes}
        if self.whole:
            found["counts"] = self._counted_bits(flat, y, weight) if self.binary else self._counted(flat, y, weight)
        if self.real:
            found["sums"] = self._summed(self._reals(flat), y, weight)
        return found

    def _counted(self, flat: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
        """n_yv, ``(K, S)``; a missing entry is counted nowhere."""
        classes, levels = self.log_mass.shape
        place = self._places(flat) + (y * (levels + 1))[:, None]
        each = None if weight is None else weight[:, None].expand_as(place).flatten()
        counts = place.flatten().bincount(each, minlength=classes * (levels + 1))
        return counts.view(classes, levels + 1)[:, :levels].double()

    def _belongs(self, y: Tensor, weight: Tensor | None) -> Tensor:
        """The weight of each example in its class, ``(K, B)``."""
        found = self.mean.new_zeros(len(self.mean), len(y))
        found[y, torch.arange(len(y), device=y.device)] = found.new_ones(len(y)) if weight is None else weight
        return found

    def _counted_bits(self, flat: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
        """The same for binary columns without gaps, by one product of matrices."""
        belongs = self._belongs(y, weight)
        ones = belongs @ flat.double()
        return torch.stack([belongs.sum(1, keepdim=True) - ones, ones], 2).flatten(1)

    def _summed(self, x: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
        belongs, found = self._belongs(y, weight), self.mean.new_zeros(3, *self.mean.shape)
        for part, own in zip(x.split(_ROWS), belongs.split(_ROWS, 1), strict=True):
            far = part.double() - self.centre
            if self.event.missing:
                gaps = far.isnan()
                far = far.masked_fill(gaps, 0.0)
                found[0] += own @ (~gaps).double()
            found[1] += own @ far
            found[2] += own @ far.square_()
        if not self.event.missing:
            found[0] = belongs.sum(1, keepdim=True)
        return found.movedim(0, 1)

    @torch.no_grad()
    def maximize(self, statistics: Mapping[str, Tensor]) -> None:
        """Set p(y), the smoothed frequencies of levels, and the means and variances of real columns."""
        classes = statistics["classes"]
        if self.log_prior is not None:
            self.log_prior.copy_(((classes + 1) / (classes.sum() + len(classes))).log())
        if self.whole:
            smoothed = statistics["counts"] + self.smoothing
            total = torch.zeros(len(smoothed), len(self.sizes), dtype=torch.float64, device=smoothed.device)
            total = total.index_add_(1, self.get_buffer("column"), smoothed)[:, self.get_buffer("column")]
            mass = torch.where(total > 0, smoothed / total, 1 / self.get_buffer("size"))
            self.log_mass.copy_(mass.log())
        if self.real:
            mean, variance = _moments(statistics["sums"])
            all_mean, all_variance = _moments(statistics["sums"].sum(0))
            floor = _FLOOR * all_variance.max()
            seen = statistics["sums"][:, 0] > 0
            self.mean.copy_(self.centre + torch.where(seen, mean, all_mean))
            variance = torch.where(seen, variance, all_variance) + floor
            # Without any spread the unit of the columns is unknown, so that it stays 1.
            self.variance.copy_(variance if bool(floor > 0) else torch.ones_like(variance))

    def parameter_log_prior(self) -> Tensor:
        """α Σ log p(v | y): Dirichlet distributions with parameters 1 + α."""
        return self.smoothing * self.log_mass.sum() if self.smoothing else self.mean.new_zeros(())

    # --- scores ---------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """−log p(x | y), or −log p(x) where no condition is given in evaluation mode: ``(B,)``."""
        if batch.given is None and not self.training:
            return {"loss": -self.log_prob(batch.x)}
        return super().loss(batch, generator=generator)

    def _log_prob(self, batch: Batch, *, samples: int, generator: Generator | None) -> Tensor:
        each = self._log_each(batch.x.flatten(1))
        given = self.condition_or_none(batch.given, len(batch))
        return each[:, 0] if given is None else each.gather(1, given.long()[:, None]).squeeze(1)

    def log_prob_each_class(self, batch: Batch, *, samples: int = 1, generator: Generator | None = None) -> Tensor:
        return self._log_each(batch.x.flatten(1))

    def predict_proba(self, x: Tensor, *, lengths: Tensor | None = None) -> Tensor:
        found = super().predict_proba(x, lengths=lengths)
        return torch.where(found.isnan().any(1, keepdim=True), self.log_class_prior().exp(), found)

    def _log_each(self, flat: Tensor) -> Tensor:
        """log p(x | y) of every class: ``(B, D)`` → ``(B, K)``."""
        found = flat.new_zeros(len(flat), len(self.log_mass), dtype=torch.float64)
        if self.binary and bool(self.log_mass.isfinite().all()) and not bool(flat.isnan().any()):
            zero, one = self.log_mass.view(len(self.log_mass), -1, 2).unbind(2)
            found = flat.double() @ (one - zero).T + zero.sum(1)
        elif self.whole:
            table = torch.cat([self.log_mass, self.log_mass.new_zeros(len(self.log_mass), 1)], 1).T.contiguous()
            found = embedding_bag(self._places(flat), table, mode="sum")
        if self.real:
            found = found + self._log_normal_sums(self._reals(flat))
        return found

    def _log_normal_sums(self, x: Tensor) -> Tensor:
        """The sum of `_log_normals` over the entries, class by class: ``(B, R)`` → ``(B, K)``."""
        if bool(x.isnan().any()):
            return self._log_normals(x).sum(1)
        pairs = list(zip(self.mean, -0.5 / self.variance, strict=True))
        # Few rows at a time stay in the cache.
        parts = (part.double() for part in x.split(_ROWS))
        far = [torch.stack([(y - mean).square() @ scale for mean, scale in pairs], 1) for y in parts]
        return torch.cat(far) - 0.5 * (self.variance.log() + dist.LOG_2PI).sum(1)

    def _log_normals(self, x: Tensor) -> Tensor:
        """log p(x_d | y) of real entries, 0 for a missing one: ``(B, R)`` → ``(B, R, K)``."""
        gaps = x.isnan()
        far = (torch.where(gaps, torch.zeros_like(x), x).double()[..., None] - self.mean.T).square() / self.variance.T
        return -0.5 * (far + self.variance.T.log() + dist.LOG_2PI).masked_fill(gaps[..., None], 0.0)

    def _reals(self, flat: Tensor) -> Tensor:
        """The real entries, ``(B, R)``."""
        return flat[:, self.real] if self.whole else flat

    def _places(self, flat: Tensor) -> Tensor:
        """The row of each discrete entry among all S levels, and S for a missing one: ``(B, D)`` → ``(B, n)``."""
        x = flat if len(self.whole) == flat.shape[1] else flat[:, self.whole]
        if not x.is_floating_point():
            return x.long() + self.get_buffer("shift")
        gaps = x.isnan()
        return (x.masked_fill(gaps, 0.0).long() + self.get_buffer("shift")).masked_fill(gaps, sum(self.sizes))

    def log_conditionals(self, x: Tensor, *, given: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        """log p(x_d | y) of each entry; without a condition log p(x_d | x_<d), a mixture of the classes."""
        self.event.check(x)
        flat = x.flatten(1)
        each = flat.new_zeros(*flat.shape, len(self.log_mass), dtype=torch.float64)
        if self.whole:
            table = torch.cat([self.log_mass, self.log_mass.new_zeros(len(self.log_mass), 1)], 1).T
            each[..., self.whole, :] = table[self._places(flat)]
        if self.real:
            each = each.index_copy(1, self._index(self.real), self._log_normals(flat[:, self.real]))
        label = None if given is None else self.condition(given, len(x))
        if label is not None:
            return each.gather(2, label.long()[:, None, None].expand(*flat.shape, 1)).squeeze(2)
        if self.given is None:
            return each[..., 0]
        return dist.mixture_log_conditionals(each.movedim(2, 0), self.log_class_prior())

    def _index(self, places: list[int]) -> Tensor:
        return torch.tensor(places, dtype=torch.int64, device=self.device)

    # --- draws ----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(self, n: int, *, given: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        """Exact draws: a class from p(y) if none is given, then every column from its distribution in the class."""
        label = self.condition_to_sample(given, n, generator)
        return self._draw(torch.zeros(n, dtype=torch.int64, device=self.device) if label is None else label, generator)

    def _draw(self, y: Tensor, generator: Generator | None) -> Tensor:
        x = self.mean.new_zeros(len(y), self.event.dims)
        for d, own in zip(self.whole, self.log_mass.split(self.sizes, 1) if self.whole else (), strict=True):
            x[:, d] = dist.sample_categorical(own[y.long()], generator=generator) + self.event.columns[d].low
        if self.real:
            noise = random.normal((len(y), len(self.real)), generator, like=self.mean)
            x[:, self.real] = self.mean[y.long()] + self.variance.sqrt()[y.long()] * noise
        dtype = self.event.dtype
        return (x if dtype.is_floating_point else x.round()).to(dtype).view(len(y), *self.event.shape)

    @torch.no_grad()
    def complete(
        self, x: Tensor, known: Tensor, *, given: Tensor | None = None, generator: Generator | None = None
    ) -> Tensor:
        """Exact draws: a class from p(y | known entries) if none is given, then the unknown entries in the class.

        Known entries keep their values. A known entry that is missing (NaN) stays so, and is integrated out.

        Raises:
            InputError: no class allows the known entries of an example, which only ``smoothing=0`` makes possible.
        """
        joint = self._log_joint_of_known(x, known, given)
        drawn = given is None and self.classes
        y = dist.sample_categorical(joint, generator=generator) if drawn else joint.argmax(1)
        return self.kept(x, known, self._draw(y, generator))

    def _log_joint_of_known(self, x: Tensor, known: Tensor, given: Tensor | None) -> Tensor:
        """log p(y, known entries), ``(B, K)``; with a condition 0 of its class and −∞ of others."""
        self.check_known(x, known)
        label = None if given is None else self.condition(given, len(x))
        if label is not None:
            joint = self.mean.new_full((len(x), len(self.log_mass)), -math.inf)
            return joint.scatter_(1, label.long()[:, None], 0.0)
        if not self.classes:
            return self.mean.new_zeros(len(x), 1)
        flat = torch.where(known, x, self.event.lowest(x)).flatten(1).double()
        joint = self._log_each(flat.masked_fill(~known.flatten(1), math.nan)) + self.log_class_prior()
        impossible = joint.isneginf().all(1).nonzero()
        if len(impossible):
            raise InputError(
                f"the known entries of example {int(impossible[0])} have probability 0 under this NaiveBayes, so "
                "that nothing follows from them; train it with smoothing above 0"
            )
        return joint

    @torch.no_grad()
    def marginals(
        self, x: Tensor, known: Tensor, *, given: Tensor | None = None
    ) -> Iterator[tuple[int, Tensor, Marginal]]:
        """p(x_d | known entries) = Σ_y p(y | known entries) p(x_d | y); one class if it is given.

        Raises:
            InputError: as `complete`.
        """
        weights = self._log_joint_of_known(x, known, given).log_softmax(1)
        masses = dict(zip(self.whole, self.log_mass.split(self.sizes, 1) if self.whole else (), strict=True))
        for entry, rows in self.unknown_rows(known):
            if entry in masses:
                yield entry, rows, (weights[rows].exp() @ masses[entry].exp()).log()
            else:
                yield entry, rows, self._line(weights[rows], self.real.index(entry))

    def _line(self, log_weights: Tensor, place: int) -> GaussianIntervals:
        """The mixture of the classes on a real column, by their weights ``(n, K)``."""
        zero, unit = self.mean.new_zeros(()), self.mean.new_ones(())
        return GaussianIntervals(log_weights, self.mean[:, place], 0.5 * self.variance[:, place].log(), zero, unit)

    @torch.no_grad()
    def visit(self, n: int, choose: ChooseEntry, *, gaps: Tensor | None = None, given: Tensor | None = None) -> None:
        """p(x_d | x_<d) = Σ_y w_y p(x_d | y), with the weights w_y ∝ p(y) p(x_<d | y); one class if it is given."""
        classes = len(self.log_mass)
        label = None if given is None else self.condition(given, n)
        if label is not None:
            log_joint = self.mean.new_full((n, classes), -math.inf).scatter_(1, label.long()[:, None], 0.0)
        else:
            log_joint = (self.log_class_prior() if self.classes else self.mean.new_zeros(1)).expand(n, -1)
        masses = dict(zip(self.whole, self.log_mass.split(self.sizes, 1) if self.whole else (), strict=True))
        for entry in in_steps(range(self.event.dims)):
            # After what no class allows, classes are alike.
            weights = log_joint.softmax(1).nan_to_num(nan=1 / classes)
            if entry in masses:
                own = masses[entry].T  # (levels, K)
                value = choose(entry, (weights @ own.exp().T).log())
                each = own[value.nan_to_num(0.0).long()]
            else:
                place = self.real.index(entry)
                mean, log_std = self.mean[:, place], 0.5 * self.variance[:, place].log()
                value = choose(entry, self._line(weights.log(), place))
                each = dist.gaussian_log_prob(value[:, None].nan_to_num(0.0), mean, log_std)
            log_joint = log_joint + each.masked_fill(value.isnan()[:, None], 0.0)


def _moments(sums: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance by the number of values, their sum and that of their squares: ``(..., 3, R)``."""
    count, first, second = sums.unbind(-2)
    count = count.clamp(min=torch.finfo(count.dtype).tiny)
    mean = first / count
    return mean, (second / count - mean.square()).clamp(min=0.0)
