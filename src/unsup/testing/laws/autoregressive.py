"""Laws of autoregressive models: the order is respected, and fast sampling equals slow sampling."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from unsup.core.event import Event
from unsup.core.model import Factorises, IsAutoregressive, Model
from unsup.testing.law import law, require
from unsup.testing.subject import Subject, perturb

_INPUTS, _DRAWS, _MOST_ROWS = 8, 3, 64
_OPEN_DRAWS = 2
_AT_ONCE = 65536  # entries of examples in one pass


def _is_autoregressive(model: Model) -> bool:
    return isinstance(model, IsAutoregressive)


def whole(event: Event, data: Tensor) -> Tensor:
    """Examples in which missing entries are filled with the column's mean: ``(N, D)``, float64."""
    flat = data.flatten(1).double()
    return torch.where(flat.isnan(), flat.nanmean(0), flat) if event.missing else flat


def _between_levels(event: Event, data: Tensor, n: int, generator: Generator) -> Tensor:
    """Floating raw data: uniform over the range of discrete entries, jittered examples for real entries."""
    flat = whole(event, data)
    rows = torch.randint(len(flat), (n,), generator=generator, device=flat.device)
    jitter = torch.randn(n, event.dims, generator=generator, dtype=flat.dtype, device=flat.device)
    x = flat[rows] + 0.5 * flat.std(0) * jitter
    for d, s in enumerate(event.columns):
        if s.is_discrete:
            uniform = torch.rand(n, generator=generator, dtype=flat.dtype, device=flat.device)
            x[:, d] = s.low + (s.levels - 1) * uniform
    return x.view(n, *event.shape)


def _high(event: Event, data: Tensor, n: int, generator: Generator) -> Tensor:
    """Floating raw data above the middle: network inputs are positive for any scaling."""
    flat = whole(event, data)
    share = 0.3 + 0.7 * torch.rand(n, event.dims, generator=generator, dtype=flat.dtype, device=flat.device)
    x = flat.mean(0) + 2 * flat.std(0).clamp(min=1e-3) * share
    for d, s in enumerate(event.columns):
        if s.is_discrete:
            middle = (s.levels - 1) / 2
            x[:, d] = s.low + middle + middle * share[:, d]
    return x.view(n, *event.shape)


@torch.no_grad()
def _opened(model: Model, generator: Generator) -> Model:
    """A copy whose parameters are all positive and moderate.

    With positive inputs every ReLU and gate is open and no two paths from an entry to a conditional can cancel: a
    derivative is zero exactly where there is no path.
    """
    model = copy.deepcopy(model)
    for p in model.parameters():
        uniform = torch.rand(p.shape, generator=generator, dtype=p.dtype, device=p.device)
        fan_in = p[0].numel() if p.ndim > 1 else 1
        p.copy_((0.5 + uniform) / fan_in**0.75 if p.ndim > 1 else 0.1 + 0.4 * uniform)
    return model


def _jacobian_rows(
    model: IsAutoregressive, x: Tensor, order: int, rows: list[int], subject: Subject, weights: Tensor
) -> Tensor:
    """The largest |d conditional i / d x_j| over the examples, for each i of ``rows``: ``(rows, D)``.

    The parameters of a conditional are mixed with ``weights`` first: a zero derivative is then a zero of them all.
    """
    parts = []
    for some in torch.tensor(rows).split(max(1, _AT_ONCE // x.numel())):
        # Several rows in one backward pass: of the copies of the examples for row i, only conditional i is used.
        copies = x.repeat(len(some), *(1,) * (x.ndim - 1)).requires_grad_()
        given = {k: c.repeat(len(some), *(1,) * (c.ndim - 1)) for k, c in subject.given(len(x)).items()}
        mixed = model.conditionals(copies, order=order, **given) @ weights  # (R B, D, P) → (R B, D)
        own = mixed.reshape(len(some), len(x), -1)[torch.arange(len(some)), :, some].sum()
        (found,) = torch.autograd.grad(own, copies, allow_unused=True, materialize_grads=True)
        parts.append(found.reshape(len(some), len(x), -1).abs().amax(1))
    return torch.cat(parts)


@law(
    "order",
    "Each conditional depends on every earlier dimension outside the declared blind spot, and on nothing else.",
    needs="an autoregressive model",
    applies=_is_autoregressive,
)
def order(subject: Subject) -> None:
    event, data = subject.model.event, subject.batch.x
    generator = subject.generator(7)
    rows = list(range(event.dims))
    if event.dims > _MOST_ROWS:
        rows = torch.randperm(event.dims, generator=generator)[:_MOST_ROWS].tolist()
    generic = [subject.generic(draw) for draw in range(_DRAWS)]
    opened = [_opened(generic[0], generator) for _ in range(_OPEN_DRAWS)]
    declared = generic[0]
    assert isinstance(declared, IsAutoregressive)
    for m, position in enumerate(declared.orders):
        require(len(position.unique()) == event.dims, f"order {m} gives two dimensions the same position")
        largest = torch.zeros(len(rows), event.dims, dtype=torch.float64, device=position.device)
        for inputs, models in ((_between_levels, generic), (_high, opened)):
            for model in models:
                assert isinstance(model, IsAutoregressive)
                x = inputs(event, data, _INPUTS, generator)
                each = model.conditionals(x[:1], order=m, **subject.given(1)).shape[-1]
                weights = torch.randn(each, generator=generator, dtype=x.dtype, device=x.device)
                weights = weights.abs() + 0.1 if model in opened else weights
                largest = torch.maximum(largest, _jacobian_rows(model, x, m, rows, subject, weights))
        earlier = position[None, :] < position[rows][:, None]
        _compare(largest, earlier & ~declared.blind_spot(order=m).to(position.device)[rows], earlier, rows, m)


def _compare(largest: Tensor, allowed: Tensor, earlier: Tensor, rows: list[int], m: int) -> None:
    # A masked path contributes a product with an exact zero, so "does not depend" is 0.0, not small.
    leak = (largest != 0) & ~allowed
    if bool(leak.any()):
        i, j = leak.nonzero()[0].tolist()
        why = "which it declares as its blind spot" if bool(earlier[i, j]) else "which does not come before it"
        require(False, f"order {m}: conditional {rows[i]} depends on dimension {j}, {why} ({float(largest[i, j]):.2g})")
    missing = (largest == 0) & allowed
    if bool(missing.any()):
        i, j = missing.nonzero()[0].tolist()
        require(
            False,
            f"order {m}: conditional {rows[i]} ignores the earlier dimension {j} ({int(missing.sum())} such pairs)",
        )


@law(
    "fast-sampling",
    "Fast sampling equals sampling with one full pass per dimension, at temperature 1 and below, also after an update.",
    needs="an autoregressive model",
    applies=_is_autoregressive,
)
def fast_sampling(subject: Subject) -> None:
    model = subject.generic()
    assert isinstance(model, IsAutoregressive)
    for round_, temperature in enumerate((1.0, 0.7, 1.0)):
        options = {"temperature": temperature} | subject.given(24)
        fast = model.sample(24, generator=subject.generator(round_), **options)
        slow = model.sample_naive(24, generator=subject.generator(round_), **options)
        if fast.is_floating_point():
            # Both are rounded to float32 at the end, where the last bit may differ.
            same = torch.allclose(fast, slow, rtol=1e-6, atol=1e-6 * float(slow.abs().max()))
        else:
            same = torch.equal(fast, slow)
        when = f"at temperature {temperature}" + (" after its parameters changed" if round_ == 2 else "")
        require(same, f"{int((fast != slow).flatten(1).any(1).sum())} of 24 samples differ {when}")
        if round_ == 1:
            perturb(model, subject.generator(8))


@law(
    "factorisation",
    "The log-probabilities of the entries sum to log p, and do not depend on later entries.",
    needs="a model whose likelihood is a product over entries",
    applies=lambda model: isinstance(model, Factorises),
)
def factorisation(subject: Subject) -> None:
    model = subject.generic()
    assert isinstance(model, Factorises)
    event, x, given = subject.model.event, subject.x(model)[:_MOST_ROWS], subject.one_given()
    with torch.no_grad():
        lengths = subject.lengths(len(x))
        log_conditionals: Callable[..., Tensor | None] = model.log_conditionals
        parts = log_conditionals(x, generator=subject.generator(1), **given, **lengths)
        if parts is None:
            mixes = isinstance(model, IsAutoregressive) and len(model.orders.unique(dim=0)) > 1
            require(mixes, "there are no log-probabilities of entries, although there is one order only")
            return
        total = model.log_prob(x, generator=subject.generator(1), **given, **lengths)
        shape = (len(x), event.dims)
        require(parts.shape == shape, f"the log-probabilities have shape {tuple(parts.shape)}; expected {shape}")
        worst = float(((parts.double().sum(1) - total).abs() / (1 + total.abs())).max())
        require(
            worst < 1e-9,
            f"the sum of the log-probabilities of the entries differs from log p by {worst:.2g} (relative)",
        )
        require(bool((parts[x.flatten(1).isnan()] == 0).all()), "a missing entry has a log-probability other than 0")
        if lengths:  # the end of an example is not a later entry: from here on, all have full length
            whole_parts = model.log_conditionals(x, generator=subject.generator(1), **given)
            assert whole_parts is not None
            parts = whole_parts
        position = model.orders[0] if isinstance(model, IsAutoregressive) else model.positions
        sequence = list(range(event.dims)) if position is None else position.argsort().tolist()
        generator = subject.generator(9)
        for cut in sorted(
            {int(i) for i in torch.randint(1, event.dims, (3,), generator=generator)} if event.dims > 1 else ()
        ):
            early, late = sequence[:cut], sequence[cut:]
            other = x.roll(1, 0).flatten(1)
            changed = x.flatten(1).clone()
            changed[:, late] = other[:, late]
            again = model.log_conditionals(changed.view_as(x), generator=subject.generator(1), **given)
            assert again is not None
            moved = float((again - parts)[:, early].abs().max())
            require(
                moved < 1e-9, f"the first {cut} entries' log-probabilities change by {moved:.2g} with later entries"
            )
