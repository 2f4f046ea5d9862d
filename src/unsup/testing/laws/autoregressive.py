"""Laws of autoregressive models: the order is respected, and fast sampling is slow sampling."""

from __future__ import annotations

import torch
from torch import Tensor

from unsup.core.event import Event
from unsup.core.model import Factorises, IsAutoregressive, Model
from unsup.testing.law import law, require
from unsup.testing.subject import Subject, perturb

_INPUTS, _FEWEST_DRAWS, _MOST_DRAWS, _MOST_ROWS = 8, 3, 12, 64


def _is_autoregressive(model: Model) -> bool:
    return isinstance(model, IsAutoregressive)


def _between_levels(event: Event, data: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Floating raw data: uniform over the range of discrete entries, jittered examples where entries are real."""
    flat = data.flatten(1).double()
    rows = torch.randint(len(flat), (n,), generator=generator, device=flat.device)
    jitter = torch.randn(n, event.dims, generator=generator, dtype=flat.dtype, device=flat.device)
    x = flat[rows] + 0.5 * flat.std(0) * jitter
    for d, s in enumerate(event.columns):
        if s.is_discrete:
            uniform = torch.rand(n, generator=generator, dtype=flat.dtype, device=flat.device)
            x[:, d] = s.low + (s.levels - 1) * uniform
    return x.view(n, *event.shape)


def _jacobian_rows(
    model: IsAutoregressive, x: Tensor, order: int, rows: list[int], generator: torch.Generator
) -> Tensor:
    """The largest |d conditional i / d x_j| over the examples, for each i of ``rows``: ``(rows, D)``.

    The parameters of a conditional are mixed with random weights first: a zero derivative is then a zero of them all.
    """
    x = x.clone().requires_grad_()
    parameters = model.conditionals(x, order=order)  # (B, D, P)
    weights = torch.randn(parameters.shape[-1], generator=generator, dtype=x.dtype, device=x.device)
    mixed = parameters @ weights
    return torch.stack(
        [
            torch.autograd.grad(mixed[:, i].sum(), x, retain_graph=True, allow_unused=True, materialize_grads=True)[0]
            .flatten(1)
            .abs()
            .amax(0)
            for i in rows
        ]
    )


@law(
    "order",
    "Each conditional depends on every earlier dimension outside the declared blind spot, and on nothing else.",
    needs="an autoregressive model",
    applies=_is_autoregressive,
)
def order(subject: Subject) -> None:
    event = subject.model.event
    generator = subject.generator(7)
    rows = list(range(event.dims))
    if event.dims > _MOST_ROWS:
        rows = torch.randperm(event.dims, generator=generator)[:_MOST_ROWS].tolist()
    models = [subject.generic(draw) for draw in range(_FEWEST_DRAWS)]
    declared = models[0]
    assert isinstance(declared, IsAutoregressive)
    for m, position in enumerate(declared.orders):
        require(len(position.unique()) == event.dims, f"order {m} gives two dimensions the same position")
        largest = torch.zeros(len(rows), event.dims, dtype=torch.float64, device=position.device)
        earlier = position[None, :] < position[rows][:, None]
        allowed = earlier & ~declared.blind_spot(order=m).to(position.device)[rows]
        # A path through a few ReLUs may be shut at every input of a draw, so what is missing gets more draws.
        for draw in range(_MOST_DRAWS):
            model = models[draw] if draw < _FEWEST_DRAWS else subject.generic(draw)
            assert isinstance(model, IsAutoregressive)
            x = _between_levels(event, subject.batch.x, _INPUTS, generator)
            largest = torch.maximum(largest, _jacobian_rows(model, x, m, rows, generator))
            if draw >= _FEWEST_DRAWS - 1 and bool((largest[allowed] != 0).all()):
                break
        _compare(largest, allowed, earlier, rows, m)


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
    "Fast sampling equals sampling by one full pass a dimension, at temperature 1 and below, also after an update.",
    needs="an autoregressive model",
    applies=_is_autoregressive,
)
def fast_sampling(subject: Subject) -> None:
    model = subject.generic()
    assert isinstance(model, IsAutoregressive)
    for round_, temperature in enumerate((1.0, 0.7, 1.0)):
        fast = model.sample(24, generator=subject.generator(round_), temperature=temperature)
        slow = model.sample_naive(24, generator=subject.generator(round_), temperature=temperature)
        if fast.is_floating_point():
            # Both are rounded to float32 at the end, where the last bit may fall either way.
            same = torch.allclose(fast, slow, rtol=1e-6, atol=1e-6 * float(slow.abs().max()))
        else:
            same = torch.equal(fast, slow)
        when = f"at temperature {temperature}" + (" after its parameters moved" if round_ == 2 else "")
        require(same, f"{int((fast != slow).flatten(1).any(1).sum())} of 24 samples differ {when}")
        if round_ == 1:
            perturb(model, subject.generator(8))


@law(
    "factorisation",
    "The log-probabilities of the entries sum to log p, and that of an entry is blind to all later ones.",
    needs="a model whose likelihood is a product over entries",
    applies=lambda model: isinstance(model, Factorises),
)
def factorisation(subject: Subject) -> None:
    model = subject.generic()
    assert isinstance(model, Factorises)
    event, x = subject.model.event, subject.x(model)[:_MOST_ROWS]
    with torch.no_grad():
        parts = model.log_conditionals(x, generator=subject.generator(1))
        if parts is None:
            mixes = isinstance(model, IsAutoregressive) and len(model.orders.unique(dim=0)) > 1
            require(mixes, "there are no log-probabilities of entries, though there are not several orders")
            return
        total = model.log_prob(x, generator=subject.generator(1))
        shape = (len(x), event.dims)
        require(parts.shape == shape, f"the log-probabilities have shape {tuple(parts.shape)}; expected {shape}")
        worst = float(((parts.double().sum(1) - total).abs() / (1 + total.abs())).max())
        require(worst < 1e-9, f"the log-probabilities of the entries miss log p by {worst:.2g} of its size")
        position = model.orders[0] if isinstance(model, IsAutoregressive) else torch.arange(event.dims)
        sequence = position.argsort().tolist()
        generator = subject.generator(9)
        for cut in sorted(
            {int(i) for i in torch.randint(1, event.dims, (3,), generator=generator)} if event.dims > 1 else ()
        ):
            early, late = sequence[:cut], sequence[cut:]
            other = x.roll(1, 0).flatten(1)
            changed = x.flatten(1).clone()
            changed[:, late] = other[:, late]
            again = model.log_conditionals(changed.view_as(x), generator=subject.generator(1))
            assert again is not None
            moved = float((again - parts)[:, early].abs().max())
            require(
                moved < 1e-9, f"the first {cut} entries' log-probabilities change by {moved:.2g} with later entries"
            )
