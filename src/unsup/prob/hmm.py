"""Recursions of hidden Markov models: filtering, smoothing, expected counts, the best path, and draws of paths.

p(x, z) = π(z_1) Π_t A(z_{t−1}, z_t) Π_t b_t(z_t) with K states. Time is the first axis: log b is ``(T, B, K)``, and a
sequence is a column, which ends at its length. With the prediction p_t = p(z_t | x_<t), in float64 and normalised at
every step,

    f_t ∝ p_t · b_t,      p_{t+1} = f_t A,      log p(x) = Σ_t log Σ_k p_t(k) b_t(k);
    d_t ∝ b_t · (A d_{t+1}),      p(z_t | x) ∝ f_t · (A d_{t+1}),      p(z_t, z_{t+1} | x) ∝ f_t(i) A_ij d_{t+1}(j)

(Rabiner 1989, https://doi.org/10.1109/5.18626). b is relative to its largest value, and π and A are at least 1e-300.
No step underflows: with small π or A, p_t and A d_{t+1} are kept times `LIFT`, and multiplied by √b twice. The largest
product is then about 1 or more, so that one that underflows is less than 1e-323 of it, which no later step can make up
for: all states have at least 1e-300 of the next prediction.

A few long sequences are computed by an associative scan: the products of diag(b_t) A over blocks of steps are
combined in a tree (Blelloch 1990, https://www.cs.cmu.edu/~guyb/papers/Ble93.pdf), so that the number of operations in
sequence is O(log T). Rows of these products have a scale each.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from unsup.core import random

LOWEST = 1e-300
"""Probability of a transition, or of a first state, that is impossible."""
LIFT = 2.0**996
"""About 1 / `LOWEST`; a power of two, so that it rounds nothing."""
_WIDE = 1e-100  # products of two probabilities above, and of sixteen digits, are in the range of float64
BLOCK = 32
"""Steps of a block of the scan, which are computed one after the other."""
_SCAN_FROM = 128  # steps
_SCAN_UP_TO = 2**15  # B K³: above, a step has enough work by itself
_CHUNK = 2**22  # numbers of log b at a time


def is_scanned(steps: int, batch: int, states: int) -> bool:
    """Whether the scan is faster than one step after the other."""
    return steps >= _SCAN_FROM and 0 < batch * states**3 <= _SCAN_UP_TO


def chunk_length(batch: int, states: int) -> int:
    """Steps at a time, so that memory is bounded."""
    return max(BLOCK, _CHUNK // max(1, batch * states))


def is_wide(initial: Tensor, transition: Tensor) -> bool:
    """Whether products of probabilities may exceed the range of float64, unless they are lifted."""
    return bool(torch.minimum(initial.min(), transition.min()) < _WIDE)


# --- references: log-space, one step after the other ------------------------------------------------------------------


def log_forward(log_initial: Tensor, log_transition: Tensor, log_b: Tensor) -> Tensor:
    """log p(x_≤t, z_t) by sums in log-space: the slow reference, ``(T, B, K)`` → ``(T, B, K)``."""
    found = [log_initial + log_b[0]]
    for own in log_b[1:]:
        found.append((found[-1].unsqueeze(-1) + log_transition).logsumexp(-2) + own)
    return torch.stack(found)


def log_backward(log_transition: Tensor, log_b: Tensor) -> Tensor:
    """log p(x_>t | z_t) by sums in log-space: the slow reference, ``(T, B, K)`` → ``(T, B, K)``."""
    found = [torch.zeros_like(log_b[0])]
    for own in log_b[1:].flip(0):
        found.append((log_transition + (own + found[-1]).unsqueeze(-2)).logsumexp(-1))
    return torch.stack(found[::-1])


# --- both passes over some steps --------------------------------------------------------------------------------------


class Smoothed(NamedTuple):
    """See `Trellis.smooth`."""

    posterior: Tensor
    pairs: Tensor
    before: Tensor


class Trellis:
    """Some consecutive steps of a batch of sequences.

    Within, states come before sequences, ``(T, K, N)``, so that sums over the few states run over long rows. With the
    scan, the N columns are the blocks of all sequences, one block after the other.

    Args:
        log_b: ``(T, B, K)``; of padding 0.
        transition: A, ``(K, K)``, without zeros.
        there: which steps are not padding, ``(T, B)``; None if all are.
        scan: whether to use the scan; None: where it is faster.
        wide: `is_wide` of π and A. If so, ``lift`` is `LIFT`, and the transition and predictions are times it.
    """

    def __init__(
        self,
        log_b: Tensor,
        transition: Tensor,
        there: Tensor | None = None,
        *,
        scan: bool | None = None,
        wide: bool = True,
    ) -> None:
        self.steps, self.batch, self.states = log_b.shape
        self.wide, self.lift = wide, LIFT if wide else 1.0
        self.transition = transition * self.lift
        self.across = self.transition.T.contiguous()
        self.rest: Trellis | None = None  # the last steps, which fill no block
        self.blocks, whole = 1, self.steps
        if self.steps >= BLOCK and (scan if scan is not None else is_scanned(*log_b.shape)):
            self.blocks = self.steps // BLOCK
            whole = self.blocks * BLOCK
            if whole < self.steps:
                ahead = None if there is None else there[whole:]
                self.rest = Trellis(log_b[whole:], transition, ahead, scan=False, wide=wide)
        relative = self._across(log_b[:whole])
        self.peak = relative.amax(1, keepdim=True)
        # The order of a single sequence or state is the same, so that `relative` is memory of the caller.
        shared = relative.untyped_storage().data_ptr() == log_b.untyped_storage().data_ptr()
        relative = relative - self.peak if shared else relative.sub_(self.peak)
        first = relative[0].clone()
        self.b = (relative.mul_(0.5) if wide else relative).exp_()  # b, or √b
        self.there = None if there is None else self._across(there[:whole, :, None])
        self.filtered = self.b
        self.tree: _Tree | None = None
        if self.blocks > 1:
            self.tree = _Tree(*self._products(first), self.blocks)

    def forward(self, start: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """From the prediction of the first step ``(B, K)``.

        Returns:
            p(z_t | x_≤t) ``(T, B, K)``, log p(x_t | x_<t) ``(T, B)``, and the prediction of the step after the last.
            Of padding, they are the prediction and 0.
        """
        terms, end = self.filter(start)
        filtered, trellis = [self._in_order(self.filtered)], self.rest
        while trellis is not None:
            filtered.append(trellis._in_order(trellis.filtered))
            trellis = trellis.rest
        return torch.cat(filtered) if len(filtered) > 1 else filtered[0], terms, end

    def filter(self, start: Tensor) -> tuple[Tensor, Tensor]:
        """`forward` without the first result, which is kept for `smooth`."""
        starts = start if self.tree is None else self.tree.starts(start)
        self.filtered, totals, ends = self._forward_steps(starts.T * self.lift)
        terms = self._in_order(totals.div_(self.lift).log_() + self.peak).squeeze(2)
        end = ends[:, -self.batch :].T / self.lift
        if self.rest is None:
            return terms, end
        more, end = self.rest.filter(end)
        return torch.cat([terms, more]), end

    def backward(self, end: Tensor) -> Tensor:
        """From d of the step after the last, ``(B, K)``: d_t up to a factor, ``(T, B, K)``; for padding, of its end."""
        others = None if self.rest is None else self.rest.backward(end)
        found = self._in_order(self._backward_steps(self._ends(end if others is None else others[0])))
        return found if others is None else torch.cat([found, others])

    def smooth(self, end: Tensor, weight: Tensor | None, follows: Tensor | None, *, last: bool) -> Smoothed:
        """Expected counts, after `filter`.

        Args:
            end: d of the step after the last, ``(B, K)``.
            weight: of the sequences, ``(B,)``.
            follows: which steps have a step after them, ``(T, B)``; None if all have.
            last: whether the last step has none after it.

        Returns:
            p(z_t | x) times the weight, 0 for padding: ``(T, B, K)``; Σ_t f_t(i) d_{t+1}(j), scaled so that it is the
            expected number of pairs of states over ``transition``, ``(K, K)``; and d of the first step, ``(B, K)``.
        """
        whole = len(self.b) * self.blocks
        others = None
        if self.rest is not None:
            others = self.rest.smooth(end, weight, None if follows is None else follows[whole:], last=last)
            end, last = others.before, False
        each = None if weight is None else weight.repeat(self.blocks)
        after = None if follows is None else self._across(follows[:whole, :, None])
        pairs = torch.zeros_like(self.transition)
        posterior = torch.empty_like(self.b)

        def take(t: int, beyond: Tensor, ahead: Tensor) -> None:
            """``beyond`` is d_{t+1}, and ``ahead`` A d_{t+1} times ``lift``, ``(K, N)``."""
            own = torch.mul(ahead, self.filtered[t], out=posterior[t])
            scale = own.sum(0, keepdim=True).reciprocal_()
            if each is not None:
                scale *= each
            follow = scale if after is None else torch.where(after[t], scale, 0.0)
            joins = self.filtered[t] * follow
            if last and t == len(self.b) - 1:
                joins[:, -self.batch :] = 0.0
            pairs.addmm_(joins, beyond.T)
            own *= scale if self.there is None else torch.where(self.there[t], scale, 0.0)

        before = self._backward_steps(self._ends(end), take)[0, :, : self.batch].T
        found = self._in_order(posterior)
        if others is None:
            return Smoothed(found, pairs, before)
        return Smoothed(torch.cat([found, others.posterior]), pairs + others.pairs, before)

    def _ends(self, end: Tensor) -> Tensor:
        return (end if self.tree is None else self.tree.ends(end)).T

    def _across(self, x: Tensor) -> Tensor:
        """``(T, B, K)`` → ``(T / blocks, K, blocks B)``; a view where the order is the same."""
        steps, batch, each = x.shape
        if batch == 1:  # the copy is faster with two axes
            rows = x.reshape(self.blocks, steps // self.blocks * each).T.contiguous()
            return rows.view(steps // self.blocks, each, self.blocks)
        return x.reshape(self.blocks, steps // self.blocks, batch, each).permute(1, 3, 0, 2).flatten(2).contiguous()

    def _in_order(self, x: Tensor) -> Tensor:
        """``(T / blocks, K, blocks B)`` → ``(T, B, K)``."""
        steps, each, _ = x.shape
        return (
            x.view(steps, each, self.blocks, self.batch)
            .permute(2, 0, 3, 1)
            .reshape(steps * self.blocks, self.batch, each)
        )

    def _forward_steps(self, start: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """f of all steps, the sums p_t · b_t, and the last prediction; sums and predictions times ``lift``."""
        b, there = self.b, self.there
        filtered, totals = torch.empty_like(b), b.new_empty(len(b), 1, b.shape[2])
        for t, (own, total) in enumerate(zip(filtered, totals, strict=True)):
            torch.mul(start, b[t], out=own)
            if self.wide:
                own.mul_(b[t])
            torch.sum(own, 0, keepdim=True, out=total)
            own.div_(total)
            step = self.across @ own
            start = step if there is None else torch.where(there[t], step, start)
        return filtered, totals, start

    def _backward_steps(self, end: Tensor, take: Callable[[int, Tensor, Tensor], None] | None = None) -> Tensor:
        """d of all steps, ``(T, K, N)``; ``take`` gets d_{t+1} and A d_{t+1} times ``lift`` of every step t."""
        found = torch.empty_like(self.b)
        for t in range(len(self.b) - 1, -1, -1):
            ahead = self.transition @ end
            if take is not None:
                take(t, end, ahead)
            step = torch.mul(ahead, self.b[t], out=found[t])
            if self.wide:
                step.mul_(self.b[t])
            step.div_(step.amax(0, keepdim=True))
            if self.there is not None:
                step.copy_(torch.where(self.there[t], step, end))
            end = step
        return found

    def _products(self, first: Tensor) -> tuple[Tensor, Tensor]:
        """Π_t diag(b_t) A over the steps of each block, as e^(log-scale) of each row times a row that sums to one.

        Args:
            first: log b of the first step, in which nothing underflows: ``(K, N)``.

        Returns:
            Rows ``(N, K, K)``, and their log-scale ``(N, K)``.
        """
        b, there = self.b, self.there
        _, k, n = b.shape
        identity = self.lift * torch.eye(k, dtype=b.dtype, device=b.device)[:, :, None]
        log_scale = first
        # The states after the block are the first axis, those before it the second. Rows are times ``lift``.
        found = self.across[:, :, None].expand(k, k, n).contiguous()
        if there is not None:
            found = torch.where(there[0], found, identity)
        step = torch.empty_like(found)
        for t in range(1, len(b)):
            rows = found.mul_(b[t, :, None]) if there is None else found * b[t, :, None]
            if self.wide:
                rows *= b[t, :, None]
            total = rows.sum(0)
            log_scale += (total / self.lift if self.wide else total).log()
            rows *= total.reciprocal_()
            torch.mm(self.across, rows.view(k, -1), out=step.view(k, -1))
            if there is None:
                found, step = step, found
            else:
                found = torch.where(there[t], step, found)
        return found.permute(2, 1, 0).div(self.lift).contiguous(), log_scale.T


class _Tree:
    """Products over 1, 2, 4, … blocks.

    Args:
        rows: of the products of blocks, ``(blocks B, K, K)``.
        log_scale: of their rows, ``(blocks B, K)``.
    """

    def __init__(self, rows: Tensor, log_scale: Tensor, blocks: int) -> None:
        rows, log_scale = rows.unflatten(0, (blocks, -1)), log_scale.unflatten(0, (blocks, -1))
        self.levels = [(rows, log_scale)]
        while len(rows) > 2:
            pairs = len(rows) // 2 * 2  # a last one without a partner is carried on
            weights = rows[0:pairs:2].log() + log_scale[1:pairs:2].unsqueeze(-2)
            highest = weights.amax(-1, keepdim=True)
            weights = (weights - highest).exp_()
            total = weights.sum(-1, keepdim=True)
            scales = log_scale[0:pairs:2] + (highest + total.log()).squeeze(-1)
            products = weights.div_(total) @ rows[1:pairs:2]
            rows, log_scale = torch.cat([products, rows[pairs:]]), torch.cat([scales, log_scale[pairs:]])
            self.levels.append((rows, log_scale))

    def starts(self, start: Tensor) -> Tensor:
        """Predictions of the first steps of all blocks, ``(B, K)`` → ``(blocks B, K)``."""
        found = start[None]
        for rows, log_scale in reversed(self.levels):
            pairs = len(rows) // 2 * 2
            weights = found[: pairs // 2].log() + log_scale[0:pairs:2]
            weights = (weights - weights.amax(-1, keepdim=True)).exp_()
            after = (weights.unsqueeze(-2) @ rows[0:pairs:2]).squeeze(-2)
            both = torch.stack([found[: pairs // 2], after / after.sum(-1, keepdim=True)], 1).flatten(0, 1)
            found = torch.cat([both, found[pairs // 2 :]])
        return found.flatten(0, 1)

    def ends(self, end: Tensor) -> Tensor:
        """d after the last steps of all blocks, ``(B, K)`` → ``(blocks B, K)``."""
        found = end[None]
        for rows, log_scale in reversed(self.levels):
            pairs = len(rows) // 2 * 2
            own = found[: pairs // 2]
            before = (rows[1:pairs:2] @ own.unsqueeze(-1)).squeeze(-1).log() + log_scale[1:pairs:2]
            before = (before - before.amax(-1, keepdim=True)).exp_()
            found = torch.cat([torch.stack([before, own], 1).flatten(0, 1), found[pairs // 2 :]])
        return found.flatten(0, 1)


# --- likelihood and expected counts -----------------------------------------------------------------------------------

Emissions = Callable[[int, int], Tensor]
"""log b of the steps from one number to another: ``(T, B, K)``, of padding anything finite."""
Take = Callable[[int, int, Tensor], None]
"""Takes p(z_t | x) of the steps from one number to another: see `expect`."""


def positive(log_probabilities: Tensor) -> Tensor:
    """π or A in float64, without zeros."""
    return log_probabilities.double().exp().clamp(min=LOWEST)


def floored(log_probabilities: Tensor) -> Tensor:
    """Logarithms of `positive`."""
    return log_probabilities.clamp(min=math.log(LOWEST))


class _Chain:
    """π, A, and `is_wide` of them."""

    def __init__(self, log_initial: Tensor, log_transition: Tensor) -> None:
        self.initial, self.transition = positive(log_initial), positive(log_transition)
        self.wide = is_wide(self.initial, self.transition)

    def trellis(
        self, emissions: Emissions, span: tuple[int, int], lengths: Tensor | None, scan: bool | None = None
    ) -> Trellis:
        log_b, there = emissions(*span).double(), _there(lengths, *span)
        if there is not None:
            log_b = torch.where(there[:, :, None], log_b, 0.0)
        return Trellis(log_b, self.transition, there, scan=scan, wide=self.wide)


def _chunks(steps: int, batch: int, states: int) -> list[tuple[int, int]]:
    size = chunk_length(batch, states)
    return [(start, min(start + size, steps)) for start in range(0, steps, size)]


def _there(lengths: Tensor | None, first: int, last: int) -> Tensor | None:
    if lengths is None:
        return None
    return torch.arange(first, last, device=lengths.device)[:, None] < lengths


def log_likelihood(
    log_initial: Tensor,
    log_transition: Tensor,
    emissions: Emissions,
    steps: int,
    batch: int,
    *,
    lengths: Tensor | None = None,
    scan: bool | None = None,
) -> Tensor:
    """log p(x) of sequences, ``(B,)``, without a gradient.

    Args:
        log_initial: ``(K,)``.
        log_transition: ``(K, K)``.
        emissions: computes log b of some steps.
        steps, batch: T and B.
        lengths: ``(B,)``; None if all are T.
        scan: as for `Trellis`.
    """
    chain = _Chain(log_initial, log_transition)
    start = chain.initial.expand(batch, -1)
    total = start.new_zeros(batch)
    for span in _chunks(steps, batch, len(log_initial)):
        each, start = chain.trellis(emissions, span, lengths, scan).filter(start)
        total = total + each.sum(0)
    return total


class Expected(NamedTuple):
    """Sums over sequences under p(z | x).

    Attributes:
        log_prob: log p(x) of each, ``(B,)``.
        initial: the states of first steps, ``(K,)``.
        transitions: pairs of consecutive states, ``(K, K)``.
    """

    log_prob: Tensor
    initial: Tensor
    transitions: Tensor


def expect(
    log_initial: Tensor,
    log_transition: Tensor,
    emissions: Emissions,
    steps: int,
    batch: int,
    take: Take,
    *,
    lengths: Tensor | None = None,
    weight: Tensor | None = None,
    scan: bool | None = None,
) -> Expected:
    """The E step: expected counts, and p(z_t | x) chunk by chunk, so that memory is bounded for long sequences.

    Args:
        take: called with the first step of a chunk, that after its last one, and p(z_t | x) times the weight, 0 for
            padding: ``(T, B, K)``. Chunks come in reverse.
        weight: of the sequences, ``(B,)``.
        log_initial, log_transition, emissions, steps, batch, lengths, scan: as for `log_likelihood`.
    """
    chain, spans = _Chain(log_initial, log_transition), _chunks(steps, batch, len(log_initial))
    start = chain.initial.expand(batch, -1)
    starts, log_prob = [], start.new_zeros(batch)
    initial, pairs = torch.zeros_like(chain.initial), torch.zeros_like(chain.transition)
    for span in spans:
        starts.append(start)
        trellis = chain.trellis(emissions, span, lengths, scan)
        each, start = trellis.filter(start)
        log_prob = log_prob + each.sum(0)
    end = torch.ones_like(start)
    for number in range(len(spans) - 1, -1, -1):
        span = spans[number]
        if number < len(spans) - 1:  # the last chunk is still there
            trellis = chain.trellis(emissions, span, lengths, scan)
            trellis.filter(starts[number])
        follows = _there(lengths, span[0] + 1, span[1] + 1)
        last = number == len(spans) - 1 and lengths is None
        found = trellis.smooth(end, None if weight is None else weight.double(), follows, last=last)
        pairs += found.pairs
        if number == 0:
            initial = found.posterior[0].sum(0)
        take(*span, found.posterior)
        end = found.before
    return Expected(log_prob, initial, pairs * trellis.transition)


class _LogLikelihood(torch.autograd.Function):
    """log p(x), whose gradients are expected counts."""

    @staticmethod
    def forward(
        ctx: Any,
        log_initial: Tensor,
        log_transition: Tensor,
        log_b: Tensor,
        lengths: Tensor | None,
        scan: bool | None,
    ) -> Tensor:
        ctx.save_for_backward(log_initial, log_transition, log_b, lengths)
        ctx.scan = scan
        steps, batch, _ = log_b.shape
        return log_likelihood(
            log_initial, log_transition, lambda i, j: log_b[i:j], steps, batch, lengths=lengths, scan=scan
        )

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        log_initial, log_transition, log_b, lengths = ctx.saved_tensors
        steps, batch, _ = log_b.shape
        slope = torch.zeros_like(log_b)

        def take(first: int, last: int, posterior: Tensor) -> None:
            slope[first:last] = posterior

        found = expect(
            log_initial,
            log_transition,
            lambda i, j: log_b[i:j],
            steps,
            batch,
            take,
            lengths=lengths,
            weight=grad,
            scan=ctx.scan,
        )
        return found.initial.to(log_initial), found.transitions.to(log_transition), slope, None, None


def log_prob(
    log_initial: Tensor,
    log_transition: Tensor,
    log_b: Tensor,
    *,
    lengths: Tensor | None = None,
    scan: bool | None = None,
) -> Tensor:
    """log p(x) with its gradient: the expected counts of first states, of pairs of states, and p(z_t | x).

    Args:
        log_initial: ``(K,)``.
        log_transition: ``(K, K)``.
        log_b: ``(T, B, K)``, of padding anything finite.
        lengths: ``(B,)``; None if all are T.
        scan: as for `Trellis`.

    >>> uniform = torch.full((2,), 0.5, dtype=torch.float64).log()
    >>> float(log_prob(uniform, uniform.expand(2, 2), torch.zeros(5, 1, 2, dtype=torch.float64)))
    0.0
    """
    found: Tensor = _LogLikelihood.apply(log_initial, log_transition, log_b, lengths, scan)
    return found


def filtered_and_terms(
    log_initial: Tensor, log_transition: Tensor, log_b: Tensor, *, lengths: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """p(z_t | x_≤t), ``(T, B, K)``, and log p(x_t | x_<t), ``(T, B)``; of padding, a prediction and 0."""
    steps, batch, _ = log_b.shape
    chain = _Chain(log_initial, log_transition)
    trellis = chain.trellis(lambda i, j: log_b[i:j], (0, steps), lengths)
    found, terms, _ = trellis.forward(chain.initial.expand(batch, -1))
    return found, terms


# --- paths ------------------------------------------------------------------------------------------------------------


def best_path(
    log_initial: Tensor, log_transition: Tensor, log_b: Tensor, *, lengths: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The most probable states by dynamic programming (Viterbi 1967, https://doi.org/10.1109/TIT.1967.1054010).

    Args:
        log_initial, log_transition, log_b, lengths: as for `log_prob`.

    Returns:
        The states ``(T, B)``, −1 for padding, and log p(x, z) of the path, ``(B,)``.
    """
    steps, batch, states = log_b.shape
    log_initial, log_transition = floored(log_initial), floored(log_transition)
    there = _there(lengths, 0, steps)
    small = torch.uint8 if states <= 256 else torch.int32
    came = torch.zeros(steps, batch, states, dtype=small, device=log_b.device)
    score = log_initial + log_b[0]
    if there is not None:
        score = torch.where(there[0, :, None], score, 0.0)
    identity = torch.arange(states, device=log_b.device)
    for t in range(1, steps):
        best, source = (score.unsqueeze(-1) + log_transition).max(1)
        best = best + log_b[t]
        if there is not None:
            best = torch.where(there[t, :, None], best, score)
            source = torch.where(there[t, :, None], source, identity)
        score, came[t] = best, source.to(small)
    reached, state = score.max(1)
    path = torch.empty(steps, batch, dtype=torch.int64, device=log_b.device)
    for t in range(steps - 1, -1, -1):
        path[t] = state
        state = came[t].gather(1, state[:, None]).squeeze(1).long()
    return (path if there is None else torch.where(there, path, -1)), reached


def draw_path(filtered: Tensor, log_transition: Tensor, generator: Generator | None) -> Tensor:
    """States from p(z | x) by backward sampling: ``(T, B, K)``, as p(z_t | x_≤t) of all T steps → ``(T, B)``.

    z_T ~ f_T and z_t ~ p(z_t | z_{t+1}, x_≤t) ∝ f_t(i) A(i, z_{t+1}) (Carter, Kohn 1994,
    https://doi.org/10.1093/biomet/81.3.541).
    """
    transition = positive(log_transition)
    found = torch.empty(filtered.shape[:2], dtype=torch.int64, device=filtered.device)
    weight = filtered[-1]
    for t in range(len(filtered) - 1, -1, -1):
        found[t] = draw_states(weight, generator)
        weight = filtered[t - 1] * transition.T[found[t]]
    return found


def draw_states(weight: Tensor, generator: Generator | None) -> Tensor:
    """Numbers of states with probabilities proportional to ``weight``, ``(B, K)`` → ``(B,)``."""
    cumulative = weight.cumsum(-1)
    noise = random.uniform((len(weight), 1), generator, like=cumulative)
    return (cumulative < noise * cumulative[:, -1:]).sum(1).clamp(max=weight.shape[1] - 1)


def log_normalised(counts: Tensor) -> Tensor:
    """Logarithms of counts divided by their sum over the last axis, at least log `LOWEST`."""
    return (counts / counts.sum(-1, keepdim=True)).clamp(min=LOWEST).log()
