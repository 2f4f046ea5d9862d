"""Hidden Markov model: p(x) = Σ_z π(z_1) B(x_1 | z_1) Π_t A(z_{t−1}, z_t) B(x_t | z_t), by expectation-maximisation.

Every step of a sequence has one of K hidden states, which form a Markov chain, and what is seen at a step depends on
its state only (Baum, Petrie, Soules, Weiss 1970, https://doi.org/10.1214/aoms/1177697196; Rabiner 1989,
https://doi.org/10.1109/5.18626). The sum over all K^T paths is computed exactly, forwards in time:

    f_t(j) = p(z_t = j | x_≤t) ∝ Σ_i f_{t−1}(i) A_ij B(x_t | j),      log p(x) = Σ_t log p(x_t | x_<t)

EM (Baum, Welch) alternates the expected counts under p(z | x), by a second recursion backwards in time, with

    π_i ∝ ε + Σ p(z_1 = i | x),      A_ij ∝ ε + Σ_t p(z_t = i, z_{t+1} = j | x),      B_k from p(z_t = k | x),

where ε is that of a Dirichlet(1 + ε) prior. Everything is in float64; the recursions are in `unsup.prob.hmm`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from unsup.core import random
from unsup.core.batch import Batch
from unsup.core.config import Count, Positive, Weight, check_value
from unsup.core.errors import CapabilityError, InputError
from unsup.core.event import Event
from unsup.core.model import (
    Advice,
    CanEncode,
    ChooseEntry,
    CodesEntries,
    Factorises,
    HasLengths,
    KnowsMarginals,
    Marginal,
    SamplesAnyLength,
)
from unsup.core.steps import in_steps
from unsup.nn.counting import Counting, added
from unsup.nn.emissions import Emissions, MixedGaussians, Symbols
from unsup.prob import hmm

_MOST_LEVELS = 2**16
_ROWS = 1024  # sequences at a time in the E step
_START = 2**15  # steps by which starts are compared
_EMPTY = 1e-10  # of a state that no step has


class HiddenMarkovModel(Counting, HasLengths, SamplesAnyLength, KnowsMarginals, Factorises, CanEncode, CodesEntries):
    """A Markov chain of K hidden states, each with a distribution of what is seen (Baum et al. 1970, Rabiner 1989).

    A step of a sequence ``(T,)`` is an entry, of a sequence ``(T, C)`` a frame of C entries. Discrete entries of a
    frame are independent given the state: probabilities of symbols, or Bernoullis of binary entries. Real entries are
    standardised, and a state has a mixture of Gaussians. Missing entries are integrated out.

    Sequences of different lengths: those of unordered symbols (nominal, with more than two levels) end with a symbol of
    their own, which the states emit, so that masses sum to one over all lengths, 0 included; of other data, p(x) is
    that given the length. If all sequences have one length, ``lengths`` are those of beginnings.

    `encode` gives p(z_t | x) of all steps and states, step by step: ``(B, T K)``; `posteriors` has them as
    ``(B, T, K)``, `states` the most probable path (Viterbi). `complete` draws unknown entries anywhere in a sequence
    from their exact conditional distribution.

    Starts are random: the frequencies of symbols times exponential noise, or seeds of k-means++ for Gaussians; and
    transitions from a uniform Dirichlet distribution. A state that loses all its steps keeps its parameters.

    Args:
        event: sequences whose entries have one support.
        states: K.
        components: number of Gaussians of each state.
        covariance: of the Gaussians: ``diagonal`` or ``full``.
        transition_prior: ε, added to the counts of transitions and first states.
        smoothing: added to the counts of symbols in each state.
        covariance_prior: steps that a prior of unit covariance is worth, in units of the spread of the data; it keeps
            covariances from collapsing.
        iterations: the most EM passes.
        tolerance: EM stops when a pass raises the mean log-likelihood of a sequence by less than this, in nats.
        restarts: starts tried by ten EM passes each on a part of the data; the likeliest is kept.

    Raises:
        InputError: components or a full covariance of entries that are not real.

    >>> import torch
    >>> from unsup import Event, Support
    >>> model = HiddenMarkovModel(Event((8,), Support("nominal", 5), "sequence"), states=3)
    >>> model.states(model.sample(2)).shape
    torch.Size([2, 8])
    """

    presets = {
        "tiny": {"states": 3, "iterations": 20, "restarts": 1},
        "paper": {"restarts": 10, "tolerance": 1e-4},  # the number of states depends on the data
    }
    autocast = False
    takes_lengths = True
    takes_missing = True
    marginalises = True
    not_in_half = "sums over all the data are in float64"
    data_defaults = {"text": {"length": 256}}

    def __init__(
        self,
        event: Event,
        *,
        states: Count = 10,
        components: Count = 1,
        covariance: Literal["diagonal", "full"] = "diagonal",
        transition_prior: Weight = 0.1,
        smoothing: Weight = 0.1,
        covariance_prior: Positive = 1.0,
        iterations: Count = 100,
        tolerance: Weight = 1e-4,
        restarts: Count = 5,
    ) -> None:
        if not event.is_real and (components > 1 or covariance != "diagonal"):
            raise InputError(
                f"HiddenMarkovModel: components and covariance are of Gaussians, and {event} has none; remove these "
                "options"
            )
        assert event.uniform is not None
        self.count, self.restarts, self.transition_prior = states, restarts, transition_prior
        self.take_passes(iterations, tolerance)
        self.ends = event.open and len(event.shape) == 1 and event.has_words
        self.initial = nn.Parameter(torch.zeros(states, dtype=torch.float64))
        self.transitions = nn.Parameter(torch.randn(states, states, dtype=torch.float64))
        frame = Event((self.each,), event.uniform, "vector", event.precision, missing=event.missing)
        self.emissions: Emissions
        if event.is_real:
            self.emissions = MixedGaussians(frame, states, components, covariance, covariance_prior)
        else:
            self.emissions = Symbols(frame, states, smoothing, end=self.ends)

    @classmethod
    def reason_against(cls, event: Event) -> str | None:
        if event.layout != "sequence" or event.uniform is None:
            return "takes sequences only (the rows of a table are a series with --length N)"
        if event.uniform.levels > _MOST_LEVELS:
            return f"takes at most {_MOST_LEVELS:,} levels, each of which has a probability in every state"
        if event.missing and event.open and len(event.shape) == 1 and event.has_words:
            return "takes no sequences of symbols with an end that have missing entries"
        return None

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        return Advice(turn=None)

    @property
    def each(self) -> int:
        """Entries of a step, C."""
        return self.event.dims // self.event.shape[0]

    @property
    def n_free(self) -> int:
        return self.count**2 - 1 + self.emissions.n_free

    @property
    def _end(self) -> int | None:
        """The level of the end of a sequence, if it has one."""
        return self.emissions.end if isinstance(self.emissions, Symbols) else None

    # --- parameters -----------------------------------------------------------------------------------------------

    @property
    def log_initial(self) -> Tensor:
        """log π, ``(K,)``."""
        return self.initial.log_softmax(0)

    @property
    def log_transition(self) -> Tensor:
        """log A, ``(K, K)``; a row has the state before."""
        return self.transitions.log_softmax(1)

    # --- likelihood -----------------------------------------------------------------------------------------------

    def _log_prob(self, batch: Batch, *, samples: int, generator: Generator | None) -> Tensor:
        seen = _Seen(self, batch.x, batch.lengths)
        if torch.is_grad_enabled() and (batch.x.requires_grad or any(p.requires_grad for p in self.parameters())):
            log_b = seen.log_b(0, seen.steps)
            return hmm.log_prob(self.log_initial, self.log_transition, log_b, lengths=seen.lengths)
        return hmm.log_likelihood(
            self.log_initial, self.log_transition, seen.log_b, seen.steps, len(batch), lengths=seen.lengths
        )

    @torch.no_grad()
    def log_conditionals(
        self, x: Tensor, *, lengths: Tensor | None = None, generator: Generator | None = None
    ) -> Tensor:
        """As for all models; entries beyond the lengths are 0, and the end of a sequence counts at its place.

        Raises:
            InputError: lengths that do not fit.
        """
        self.event.check_shape(x)
        seen = _Seen(self, x, self._lengths_of(x, lengths))
        log_b = seen.log_b(0, seen.steps)
        filtered, _ = hmm.filtered_and_terms(self.log_initial, self.log_transition, log_b, lengths=seen.lengths)
        first = hmm.positive(self.log_initial).expand(1, len(x), -1)
        weights = torch.cat([first, (filtered @ hmm.positive(self.log_transition))[:-1]]).log()  # log p(z_t | x_<t)
        each = self.emissions.log_each(seen.frames(0, seen.steps)).view(seen.steps, len(x), self.each, self.count)
        beginnings = (weights.unsqueeze(2) + each.cumsum(2)).logsumexp(3)
        terms = beginnings.diff(dim=2, prepend=torch.zeros_like(beginnings[:, :, :1]))
        if seen.lengths is not None:
            places = torch.arange(seen.steps, device=x.device)
            terms = torch.where((places[:, None] < seen.lengths).unsqueeze(2), terms, 0.0)
        found = terms.new_zeros(len(x), self.event.shape[0], self.each)
        found[:, : seen.steps] = terms.transpose(0, 1)
        gaps = x.isnan().view_as(found) if self.event.missing else None
        return (found if gaps is None else found.masked_fill(gaps, 0.0)).flatten(1)

    def _lengths_of(self, x: Tensor, lengths: Tensor | None) -> Tensor | None:
        if lengths is None:
            return None
        lengths = torch.as_tensor(lengths, device=x.device)
        self.event.check_lengths(lengths, len(x))
        return lengths

    # --- learning -------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        """Set the units, then start from the best of several random starts.

        Raises:
            InputError: no training examples.
        """
        if not len(batch):
            raise InputError("HiddenMarkovModel: the training split has 0 examples; expected at least one")
        beyond = None if batch.lengths is None else self.event.padding(batch.lengths)
        steps = batch.x.reshape(-1, self.each)
        self.emissions.prepare(steps if beyond is None else steps[~beyond.flatten()], generator=generator)
        order = random.uniform((len(batch),), generator, like=self.initial, axis=None).argsort()
        length = torch.full_like(order, self.event.shape[0]) if batch.lengths is None else batch.lengths[order]
        some = batch.take(order[: max(1, int((length.cumsum(0) <= _START).sum()))])
        frames = _Seen(self, some.x, some.lengths).all_frames()

        def start() -> None:
            for own in (self.initial, self.transitions):
                noise = random.uniform(own.shape, generator, like=own, axis=None)
                own.copy_((-torch.log1p(-noise)).clamp(min=1e-3).log().log_softmax(-1))
            self.emissions.start(frames, generator)

        self.keep_best_start(self.restarts, start, lambda: self.statistics(some))

    @torch.no_grad()
    def statistics(self, batch: Batch, *, generator: Generator | None = None) -> dict[str, Tensor]:
        """The E step: expected counts of first states and transitions, and what the emissions need."""
        rows = torch.arange(len(batch), device=batch.x.device) if batch.lengths is None else batch.lengths.argsort()
        return added(self._expect(batch.take(some)) for some in rows.split(_ROWS))

    def _expect(self, batch: Batch) -> dict[str, Tensor]:
        seen, parts = _Seen(self, batch.x, batch.lengths), []
        weight = None if batch.weight is None else batch.weight.to(self.initial.dtype)

        def take(first: int, last: int, posterior: Tensor) -> None:
            parts.append(self.emissions.sums(seen.frames(first, last), posterior.flatten(0, 1)))

        found = hmm.expect(
            self.log_initial,
            self.log_transition,
            seen.log_b,
            seen.steps,
            len(batch),
            take,
            lengths=seen.lengths,
            weight=weight,
        )
        total = found.log_prob.sum() if weight is None else found.log_prob @ weight
        count = total.new_tensor(float(len(batch))) if weight is None else weight.sum()
        sums = {"count": count, "log_prob": total, "initial": found.initial, "transitions": found.transitions}
        return sums | {f"emitted_{name}": value for name, value in added(parts).items()}

    @torch.no_grad()
    def maximize(self, statistics: Mapping[str, Tensor]) -> None:
        """The M step. A state without any step keeps its row of A, unless there is a prior."""
        for own, name in ((self.initial, "initial"), (self.transitions, "transitions")):
            counts = statistics[name].clamp(min=0) + self.transition_prior
            some = counts.sum(-1, keepdim=True) > _EMPTY
            own.copy_(torch.where(some, hmm.log_normalised(torch.where(some, counts, 1.0)), own))
        prefix = "emitted_"
        self.emissions.maximize({k.removeprefix(prefix): v for k, v in statistics.items() if k.startswith(prefix)})

    def parameter_log_prior(self) -> Tensor:
        """ε Σ (log π + log A), and that of the emissions."""
        chain = self.transition_prior * (self.log_initial.sum() + self.log_transition.sum())
        return chain + self.emissions.log_prior()

    # --- states ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def posteriors(self, x: Tensor, *, lengths: Tensor | None = None) -> Tensor:
        """p(z_t | x), ``(B, T, K)``; 0 beyond the lengths. That a sequence ends is a part of x.

        Raises:
            InputError: wrong shape, or lengths that do not fit.
        """
        self.event.check_shape(x)
        seen = _Seen(self, x, self._lengths_of(x, lengths))
        found = torch.zeros(len(x), self.event.shape[0], self.count, dtype=self.initial.dtype, device=x.device)

        def take(first: int, last: int, posterior: Tensor) -> None:
            found[:, first:last] = posterior.transpose(0, 1)

        hmm.expect(
            self.log_initial,
            self.log_transition,
            seen.log_b,
            seen.steps,
            seen.batch,
            take,
            lengths=seen.lengths,
        )
        beyond = seen.beyond(self.event.shape[0])
        return found if beyond is None else found.masked_fill_(beyond.unsqueeze(2), 0.0)

    def encode(self, x: Tensor, *, lengths: Tensor | None = None) -> Tensor:
        """`posteriors` of all steps one after the other: ``(B, *event.shape)`` → ``(B, T K)``."""
        return self.posteriors(x, lengths=lengths).flatten(1)

    @torch.no_grad()
    def states(self, x: Tensor, *, lengths: Tensor | None = None) -> Tensor:
        """The most probable path of states (Viterbi), ``(B, T)`` int64; −1 beyond the lengths.

        Where sequences end with a symbol, the path goes on to the state that emits it, which is left out.

        Raises:
            InputError: no examples, values outside the event, such as NaN where it has no missing entries, or lengths
                that do not fit.
        """
        self.event.check_shape(x)
        lengths = self._lengths_of(x, lengths)
        if not len(x):
            raise InputError("x has no examples; expected at least one, whose path of states is computed")
        self.event.check(x, lengths)
        seen = _Seen(self, x, lengths)
        path, _ = hmm.best_path(self.log_initial, self.log_transition, seen.log_b(0, seen.steps), lengths=seen.lengths)
        found = torch.full((len(x), self.event.shape[0]), -1, dtype=torch.int64, device=x.device)
        found[:, : seen.steps] = path.T
        beyond = seen.beyond(self.event.shape[0])
        return found if beyond is None else found.masked_fill_(beyond, -1)

    # --- sampling -------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(self, n: int, *, generator: Generator | None = None) -> Tensor:
        """Exact draws, state by state."""
        return self._raw(self._drawn(n, self.event.shape[0], generator), n)

    @torch.no_grad()
    def sample_with_lengths(self, n: int, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        frames = self._drawn(n, self.event.shape[0], generator)
        return self._raw(frames, n), self._lengths_in(frames, n)

    def reason_against_length(self) -> str | None:
        return "ends its examples itself" if self.ends else None

    @torch.no_grad()
    def sample_long(self, n: int, length: Count, *, generator: Generator | None = None) -> Tensor:
        length = check_value("length", length, Count)
        reason = self.reason_against_length()
        if reason is not None:
            raise CapabilityError(f"{type(self).__name__} {reason}")
        return self._raw(self._drawn(n, length, generator), n)

    def _drawn(self, n: int, steps: int, generator: Generator | None) -> Tensor:
        """Frames ``(T, n, C)``."""
        transition, found = hmm.positive(self.log_transition), []
        weight = self.log_initial.exp().expand(n, -1)
        for _ in in_steps(range(steps)):
            state = hmm.draw_states(weight, generator)
            found.append(self.emissions.draw(state, generator))
            weight = transition[state]
        return self._ended(torch.stack(found))

    def _ended(self, frames: Tensor) -> Tensor:
        """An end is followed by ends."""
        end = self._end
        if end is None:
            return frames
        return torch.where((frames == end).cummax(0).values, end, frames)

    def _lengths_in(self, frames: Tensor, n: int) -> Tensor:
        end = self._end
        if end is not None:
            return frames[:, :, 0].ne(end).sum(0)
        return torch.full((n,), self.event.shape[0], dtype=torch.int64, device=self.device)

    def _raw(self, frames: Tensor, n: int) -> Tensor:
        """Frames ``(T, n, C)`` as raw data ``(n, T, …)``."""
        raw = self.emissions.raw(frames.transpose(0, 1).reshape(-1, self.each))
        return raw.view(n, len(frames), *self.event.shape[1:])

    @torch.no_grad()
    def complete(self, x: Tensor, known: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Exact draws: states from p(z | known entries), backwards in time, then the unknown entries given the states.

        Known entries may be anywhere. A known entry that is missing (NaN) stays so.
        """
        return self._completed(x, known, generator)[0]

    @torch.no_grad()
    def complete_with_lengths(
        self, x: Tensor, known: Tensor, *, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        return self._completed(x, known, generator)

    def _completed(self, x: Tensor, known: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor]:
        self.check_known(x, known)
        n, steps = len(x), self.event.shape[0]
        seen = _Seen(self, torch.where(known, x, self.event.lowest(x)), None)
        fixed = known.view(n, steps, self.each).transpose(0, 1)  # (T, B, C)
        frames = self.emissions.without(seen.frames(0, steps), ~fixed.flatten(0, 1))
        log_b = self.emissions.log_prob(frames).view(steps, n, self.count)
        after = torch.ones_like(fixed[:, :, 0])
        if isinstance(self.emissions, Symbols) and self.ends:
            # Before a known symbol, an unknown one cannot be the end.
            after = fixed[:, :, 0].flip(0).cummax(0).values.flip(0).logical_not()
            inner = ~after & ~fixed[:, :, 0]
            log_b = torch.where(inner[:, :, None], self.emissions.some_symbol(), log_b)
        filtered, _ = hmm.filtered_and_terms(self.log_initial, self.log_transition, log_b)
        state = hmm.draw_path(filtered, self.log_transition, generator).flatten()
        if isinstance(self.emissions, Symbols) and self.ends:
            frames = self.emissions.fill_before_end(frames, state, after.flatten(), generator)
        else:
            frames = self.emissions.fill(frames, state, generator)
        frames = self._ended(frames.view(steps, n, self.each))
        return self.kept(x, known, self._raw(frames, n)), self._lengths_in(frames, n)

    @torch.no_grad()
    def marginals(self, x: Tensor, known: Tensor) -> Iterator[tuple[int, Tensor, Marginal]]:
        """p(x_d | known entries) = Σ_k p(z_t = k | known entries) p(x_d | k, known entries of its step).

        Raises:
            CapabilityError: sequences end with a symbol, so that unknown entries may not be there.
        """
        if self.ends:
            raise CapabilityError(f"{type(self).__name__}: an unknown entry of {self.event} may be beyond the end")
        self.check_known(x, known)
        n, steps = len(x), self.event.shape[0]
        seen = _Seen(self, torch.where(known, x, self.event.lowest(x)), None)
        fixed = known.view(n, steps, self.each).transpose(0, 1)  # (T, B, C)
        frames = self.emissions.without(seen.frames(0, steps), ~fixed.flatten(0, 1))
        log_b = self.emissions.log_prob(frames).view(steps, n, self.count)
        posterior = torch.empty_like(log_b)

        def take(first: int, last: int, own: Tensor) -> None:
            posterior[first:last] = own

        hmm.expect(self.log_initial, self.log_transition, lambda i, j: log_b[i:j], steps, n, take)
        of = self.emissions.marginals(frames, posterior.flatten(0, 1).log())
        for entry, rows in self.unknown_rows(known):
            step, each = divmod(entry, self.each)
            yield entry, rows, of(each, step * n + rows)

    # --- coding ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def visit(self, n: int, choose: ChooseEntry, *, gaps: Tensor | None = None, given: Tensor | None = None) -> None:
        """p(x_d | x_<d) = Σ_k w_k p(x_d | entries of the step before it, k), with the weights w_k ∝ p(k, x_<d)."""
        log_transition = hmm.positive(self.log_transition).log()
        weights = hmm.floored(self.log_initial).expand(n, -1)
        missing = None if gaps is None else gaps.view(n, self.event.shape[0], self.each)
        for step in in_steps(range(self.event.shape[0])):
            turn = self.emissions.in_turn(n, None if missing is None else missing[:, step])
            for entry in range(self.each):
                value = choose(step * self.each + entry, turn.conditional(entry, weights))
                weights = weights + turn.put(entry, value)
            weights = (weights.unsqueeze(2) + log_transition).logsumexp(1)
            weights = weights - weights.logsumexp(1, keepdim=True)


class _Seen:
    """The frames of a batch, time first, and log b of them, by steps.

    Args:
        model: the model.
        x: raw data ``(B, *event.shape)``.
        lengths: ``(B,)``, or None. In a model with ends, the end of a sequence is a step more.
    """

    def __init__(self, model: HiddenMarkovModel, x: Tensor, lengths: Tensor | None) -> None:
        self.model, self.x, self.batch = model, x, len(x)
        self.steps, self.within, self.lengths = model.event.shape[0], lengths, lengths
        self.emissions = model.emissions
        self.end = model._end
        if lengths is not None:
            if self.end is not None:
                self.lengths = (lengths + 1).clamp(max=self.steps)
            assert self.lengths is not None
            longest = max(1, int(self.lengths.max()) if len(x) else 1)
            if bool((self.lengths == longest).all()):
                self.lengths = None
            self.steps = longest
        self.last: tuple[tuple[int, int], Tensor] | None = None

    def frames(self, first: int, last: int) -> Tensor:
        """Of some steps, ``(T B, C)``; of padding, the lowest level or 0."""
        if self.last is not None and self.last[0] == (first, last):
            return self.last[1]
        x = self.x[:, first:last].reshape(self.batch, last - first, self.model.each).transpose(0, 1)
        places = torch.arange(first, last, device=x.device)[:, None]
        if self.within is not None:
            x = torch.where((places < self.within)[:, :, None], x, self.model.event.lowest(x).flatten()[0].to(x.dtype))
        found = self.emissions.frames(x.reshape(-1, self.model.each))
        if self.within is not None and self.end is not None:
            found = torch.where((places == self.within).flatten()[:, None], self.end, found)
        self.last = (first, last), found
        return found

    def log_b(self, first: int, last: int) -> Tensor:
        """``(T, B, K)``."""
        return self.emissions.log_prob(self.frames(first, last)).view(last - first, self.batch, self.model.count)

    def beyond(self, steps: int) -> Tensor | None:
        """Which of so many steps have no symbol of the sequence, ``(B, T)``; None if all sequences are whole."""
        if self.within is None:
            return None
        return torch.arange(steps, device=self.x.device) >= self.within[:, None]

    def all_frames(self) -> Tensor:
        """Those within the lengths, ``(N, C)``."""
        found = self.frames(0, self.steps)
        if self.lengths is None:
            return found
        return found[(torch.arange(self.steps, device=found.device)[:, None] < self.lengths).flatten()]
