"""Each law catches a model that was broken on purpose, and passes the model that it was made from."""

from __future__ import annotations

import copy
import inspect
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

import unsup.core.rows
from unsup.core import random
from unsup.core.errors import CapabilityError, InputError
from unsup.core.event import BINARY, REAL, Event, Support, labels
from unsup.core.model import Objective
from unsup.core.registry import Row, row
from unsup.families.adversarial.cyclegan import CycleGAN
from unsup.families.adversarial.gan import GAN
from unsup.families.autoregressive.made import MADE
from unsup.families.autoregressive.pixelcnn import PixelCNN
from unsup.families.autoregressive.transformer import Transformer
from unsup.families.autoregressive.wavenet import WaveNet
from unsup.families.classical.gaussian_mixture import GaussianMixture
from unsup.families.classical.histogram import Histogram
from unsup.families.classical.kde import KDE
from unsup.families.energy.ebm import EBM
from unsup.families.energy.rbm import RBM
from unsup.families.energy.score_matching import ScoreMatching
from unsup.families.flows.nice import NICE
from unsup.families.flows.realnvp import RealNVP
from unsup.families.latent.vae import VAE
from unsup.families.selfsup.colorization import Colorization
from unsup.nn.intervals import GaussianIntervals
from unsup.prob.adversarial import discriminator_loss, generator_loss, gradient_penalty
from unsup.prob.lab import linear_of_lab, srgb_of_linear
from unsup.prob.score_matching import exact_score_matching, score_of
from unsup.testing import LAWS, Case, LawViolation, check_model, examples, law_cases

BITS, PLANE, PIXELS = Event((5,), BINARY), Event((2,), REAL), Event((1, 2, 3), BINARY)
WIDE, LEVELS = Event((1, 6, 6), BINARY), Event((3,), Support("ordinal", 4))
BREAKS: list = []


def breaks(*laws: str, event: Event, oracle=None, **options):
    """The decorated class breaks each of ``laws``; its parent is the control."""

    def register(cls):
        BREAKS.extend(pytest.param(law, cls, event, oracle, options, id=f"{law}-{cls.__name__}") for law in laws)
        return cls

    return register


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    """Broken classes have rows while a test runs, so that they can be saved."""
    for parameter in BREAKS:
        cls = parameter.values[1]
        entry = Row(cls.__name__, f"{cls.__module__}:{cls.__qualname__}", "broken", "", (), "", row("made").paper)
        monkeypatch.setitem(unsup.core.rows._ROWS, cls.__name__, entry)


@pytest.mark.parametrize(("law", "cls", "event", "oracle", "options"), BREAKS)
def test_law_catches_the_broken_model_and_passes_its_parent(law, cls, event, oracle, options):
    given = options.get("given")
    data = examples(event, 64, classes=given.uniform.levels if given is not None else 0)
    outcomes = {}
    for which in (cls, cls.__mro__[1]):
        torch.manual_seed(0)
        known = inspect.signature(which).parameters
        tiny = {k: v for k, v in which.presets["tiny"].items() if k in known and k not in options}
        model = which(event, **options, **tiny)
        (outcomes[which],) = check_model(model, data, laws=[law], oracle=oracle).outcomes
    assert outcomes[cls].status == "failed"
    assert not outcomes[cls].detail.startswith("raised"), "the model crashed; the law did not catch it"
    assert outcomes[cls.__mro__[1]].status == "passed", outcomes[cls.__mro__[1]].detail


def test_every_law_has_a_broken_model():
    assert {parameter.values[0] for parameter in BREAKS} == set(LAWS)


# --- missing entries and categories

THREES = Event((3,), Support("nominal", 3), missing=True)


@breaks("any-length", event=Event((4,), Support("ordinal", 3), "sequence"), layers=1, stacks=1, width=4, skip=4)
class RepeatsWhatIsLong(WaveNet):
    def sample_long(self, n, length, **options):
        own = self.sample(n, **options)
        return own.repeat(1, -(-length // own.shape[1]))[:, :length]


@breaks("missing-normalised", event=THREES)
class ScoresMissingEntries(MADE):
    def _log_prob(self, batch, *, samples, generator):
        return super()._log_prob(replace(batch, x=batch.x.nan_to_num(0.0)), samples=samples, generator=generator)


@breaks("missing-normalised", event=THREES, latent_dim=1)
class ScoresMissingEntriesInABound(VAE):
    def _log_prob(self, batch, *, samples, generator):
        gaps = batch.x.isnan().sum(1)
        return super()._log_prob(batch, samples=samples, generator=generator) + gaps.log1p()


@breaks("missing-integrated", event=THREES)
class ShiftsIncompleteRows(Histogram):
    def _log_prob(self, batch, *, samples, generator):
        moved = torch.where(batch.x.isnan().any(1, keepdim=True), (batch.x + 1) % 3, batch.x)
        return super()._log_prob(replace(batch, x=moved), samples=samples, generator=generator)


@breaks("categories", event=Event((3,), Support("nominal", 3)))
class PutsWordsOnALine(GaussianMixture):
    def embed(self, y):
        return y


# --- lengths

STRINGS = Event((3,), Support("nominal", 3), "sequence", open=True)


@breaks("padding", event=STRINGS)
class CountsPadding(Transformer):
    def _score(self, batch, generator):
        return super()._score(replace(batch, x=batch.x.nan_to_num(0.0).clamp(0, 2), lengths=None), generator)


@breaks("normalised", "entropy", event=STRINGS)
class DoesNotCountTheEnd(Transformer):
    def _each(self, x, context, lengths):
        found = super()._each(x, context, lengths)
        return found if lengths is None else torch.where(self.event.padding(lengths), 0.0, found)


@breaks("frequencies", event=STRINGS)
class DrawsTheEndTooLate(Transformer):
    def sample_with_lengths(self, n, **options):
        x, lengths = super().sample_with_lengths(n, **options)
        return x, (lengths + 1).clamp(max=3)


@breaks("completion", event=STRINGS)
class CompletesToFullLength(Transformer):
    def complete_with_lengths(self, x, known, **options):
        drawn, lengths = super().complete_with_lengths(x, known, **options)
        return drawn, torch.full_like(lengths, 3)


@breaks("beginnings", event=replace(STRINGS, open=False))
class ScoresOneMore(Transformer):
    def _each(self, x, context, lengths):
        return super()._each(x, context, None if lengths is None else (lengths + 1).clamp(max=3))


# --- configuration, files, state, manners


@breaks("compression", event=BITS)
class SeesOtherMassesWhenDecoding(MADE):
    calls = 0

    def visit(self, n, choose, **options):
        self.calls += 1
        super().visit(n, lambda site, masses: choose(site, masses * (1 + self.calls)), **options)


@breaks("compression", event=WIDE)
class CodesWithoutItsProbabilities(MADE):
    def visit(self, n, choose, **options):
        super().visit(n, lambda site, masses: choose(site, torch.zeros_like(masses)), **options)


@breaks("compression", event=STRINGS)
class CodesTheEndAsIfItWereRare(Transformer):
    def visit(self, n, choose, **options):
        rare = torch.tensor([0.0, 0.0, 0.0, -4.0])
        super().visit(n, lambda site, masses: choose(site, masses + rare.to(masses)), **options)


@breaks("compression", event=BITS, masks=3, order="random")
class CodesInItsFirstOrder(MADE):
    densities = 1

    def visit(self, n, choose, **options):
        net = self.steps(n, 0)
        for site in self.orders[0].argsort().tolist():
            value = choose(site, self.observation.conditional(site, net.outputs(site)))
            net.put(site, self.observation.near(site, value))


@breaks("compression", event=BITS, masks=3, order="random")
class NamesOrdersInWhichItDoesNotCode(MADE):
    def visit(self, n, choose, **options):
        super().visit(n, choose, **{**options, "order": 0})


@breaks("compression", event=LEVELS, layers=2, hidden=(8,))
class CodesWithAnotherBase(NICE):
    def base_cdf(self, z):
        return super().base_cdf(4 * z)


@breaks("configuration", event=BITS)
class RecordsAnotherWidth(MADE):
    def __init__(self, event: Event, *, hidden: tuple[int, ...] = (8,), components: int = 3) -> None:
        super().__init__(event, hidden=hidden, components=components)
        self.config["hidden"] = tuple(2 * width for width in hidden)


@breaks("save-load", event=BITS)
class ForgetsABuffer(MADE):
    def __init__(self, event: Event, *, hidden: tuple[int, ...] = (8,), components: int = 3) -> None:
        super().__init__(event, hidden=hidden, components=components)
        self.register_buffer("offset", torch.zeros(()), persistent=False)

    def prepare(self, batch, *, generator):
        super().prepare(batch, generator=generator)
        self.offset.fill_(0.5)

    def log_prob(self, x, **options):
        return super().log_prob(x, **options) + self.offset


@breaks("save-load", event=BITS)
class LeavesAPickle(MADE):
    def save(self, folder: str) -> None:
        super().save(folder)
        (Path(folder) / "weights.pkl").write_bytes(b"")


@breaks("save-load", event=BITS)
class ComesBackInFloat32(MADE):
    def load_state_dict(self, state, *arguments, **options):
        found = super().load_state_dict(state, *arguments, **options)
        self.float()
        return found


@breaks("state", event=BITS)
class CountsItsCalls(MADE):
    def __init__(self, event: Event, *, hidden: tuple[int, ...] = (8,), components: int = 3) -> None:
        super().__init__(event, hidden=hidden, components=components)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def log_prob(self, x, **options):
        self.calls += 1
        return super().log_prob(x, **options)


@breaks("no-memory", event=BITS)
class KeepsItsFirstAnswer(MADE):
    answer = None

    def log_prob(self, x, **options):
        if self.answer is None:
            self.answer = super().log_prob(x, **options).detach()
        return self.answer


@breaks("global-random-state", "same-seed", event=BITS)
class SamplesFromTheGlobalGenerator(MADE):
    def sample(self, n, *, generator=None, temperature=1.0):
        return super().sample(n, temperature=temperature)


@breaks("same-seed", event=BITS)
class AlwaysDrawsTheSame(MADE):
    def sample(self, n, *, generator=None, temperature=1.0):
        return super().sample(n, generator=torch.Generator().manual_seed(0), temperature=temperature)


@breaks("wrong-shape", event=BITS)
class TakesAnyWidth(MADE):
    def log_prob(self, x, **options):
        return super().log_prob(x[..., : self.event.dims].view(-1, self.event.dims), **options)


@breaks("wrong-shape", event=BITS)
class CrashesOnAnotherWidth(MADE):
    def log_prob(self, x, **options):
        if x.ndim != 2 or x.shape[1] != self.event.dims:
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
        return super().log_prob(x, **options)


@breaks("wrong-shape", event=BITS)
class ReadsTheStartOfLongCodes(VAE):
    def decode(self, z, **options):
        return super().decode(z[..., : self.code_size].view(-1, self.code_size), **options)


@breaks("wrong-shape", event=BITS)
class EncodesWhateverHasAShape(VAE):
    def encode(self, x, **options):
        return super().encode(x.to(self.dtype), **options)


@breaks("no-examples", event=PLANE)
class MixesNothing(GaussianMixture):
    def log_prob(self, x, **options):
        return super().log_prob(x, **options) + 0 * x.amax()


@breaks("no-examples", event=PLANE)
class GivesNoneAShapeOfItsOwn(GaussianMixture):
    def encode(self, x):
        return super().encode(x) if len(x) else torch.zeros(0, dtype=torch.float64)


@breaks("inference-mode", event=BITS)
class DifferentiatesToScore(MADE):
    def log_prob(self, x, **options):
        with torch.enable_grad():
            offset = torch.zeros((), requires_grad=True)
            (slope,) = torch.autograd.grad(2 * offset, offset)
        return super().log_prob(x, **options) + slope - 2


@breaks("inference-mode", event=BITS)
class KeepsWhatItFoundInInferenceMode(MADE):
    kept = None

    def log_prob(self, x, **options):
        found = super().log_prob(x, **options)
        if torch.is_inference_mode_enabled():
            self.kept = torch.ones_like(found)
        return found if self.kept is None or len(self.kept) != len(found) else found * self.kept


@breaks("encode", event=BITS, latent_dim=2)
class CentresCodesOverTheBatch(VAE):
    def encode(self, x):
        z = super().encode(x)
        return z - z.mean(0)


@breaks("encode", event=PLANE)
class DecodesAnotherPoint(RealNVP):
    def decode(self, z):
        return super().decode(z) * 1.01


# --- learning


@breaks("objectives", event=BITS)
class MovesAllButOne(MADE):
    def objectives(self):
        return (Objective("model", self.loss, tuple(self.parameters())[:-1]),)


@breaks("objectives", event=BITS)
class MovesOneTwice(MADE):
    def objectives(self):
        own = tuple(self.parameters())
        return (Objective("model", self.loss, own + own[:1]),)


@breaks("objectives", event=BITS)
class MovesWhatIsFrozen(MADE):
    def objectives(self):
        own = tuple(self.parameters())
        own[0].requires_grad_(False)
        return (Objective("model", self.loss, own),)


@breaks("gradients", event=BITS)
class HasADeadParameter(MADE):
    def __init__(self, event: Event, *, hidden: tuple[int, ...] = (8,), components: int = 3) -> None:
        super().__init__(event, hidden=hidden, components=components)
        self.unused = nn.Parameter(torch.zeros(3))


@breaks("gradients", event=BITS)
class HasACancelledBias(MADE):
    """A bias that is subtracted again: its gradient is rounding, not zero."""

    def __init__(self, event: Event, *, hidden: tuple[int, ...] = (8,), components: int = 3) -> None:
        super().__init__(event, hidden=hidden, components=components)
        self.cancelled = nn.Parameter(torch.zeros(3))

    def loss(self, batch, *, generator=None):
        h = torch.arange(9.0).view(3, 3).to(self.dtype) / 7 + self.cancelled
        centred = h - h.mean(0)
        return {"loss": super().loss(batch)["loss"] + centred.square().mean()}


@breaks("gradients", event=BITS)
class LeavesATrunkToTheOther(MADE):
    """Each of two players moves one half of the weights, by a loss of the other half."""

    def objectives(self):
        first, second = list(self.parameters())[::2], list(self.parameters())[1::2]

        def loss(batch, *, generator=None, held=()):
            for p in self.parameters():
                p.requires_grad_(all(p is not other for other in held))
            found = self.loss(batch)
            for p in self.parameters():
                p.requires_grad_()
            return found

        return (
            Objective("first", partial(loss, held=first), tuple(first)),
            Objective("second", partial(loss, held=second), tuple(second)),
        )


@breaks("terms", event=BITS)
class GivesAColumn(MADE):
    def loss(self, batch, *, generator=None):
        return {"loss": -self.log_prob(batch.x).mean(), "each": -self.log_prob(batch.x)[:, None].detach()}


@breaks("descent", event=BITS)
class MaximisesItsLoss(MADE):
    def loss(self, batch, *, generator=None):
        loss = super().loss(batch)["loss"]
        return {"loss": -loss if self.training else loss}


@breaks("descent", event=BITS)
class LossHasTheWrongSign(MADE):
    def loss(self, batch, *, generator=None):
        return {"loss": -super().loss(batch)["loss"]}


# --- counting


@breaks("additive-statistics", event=PLANE)
class AveragesStatistics(GaussianMixture):
    def statistics(self, batch, *, generator=None):
        sums = super().statistics(batch, generator=generator)
        return {k: v if k == "count" else v / len(batch) for k, v in sums.items()}


@breaks("additive-statistics", event=PLANE)
class IgnoresWeights(GaussianMixture):
    def statistics(self, batch, *, generator=None):
        return super().statistics(replace(batch, weight=None), generator=generator)


@breaks("ascent", event=PLANE)
class ShrinksItsMeans(GaussianMixture):
    turn = 0

    def maximize(self, statistics):
        super().maximize(statistics)
        self.turn += 1
        with torch.no_grad():
            self.gaussians.means.mul_(1 - 0.05 * self.turn)


@breaks("ascent", event=BITS)
class NeverLearns(Histogram):
    def maximize(self, statistics):
        pass


@breaks("fixed-point", event=PLANE)
class StretchesItsMeans(GaussianMixture):
    """The means of an M step are 5 % too far out."""

    def maximize(self, statistics):
        super().maximize(statistics)
        with torch.no_grad():
            self.gaussians.means.mul_(1.05)


@breaks("fixed-point", event=PLANE)
class FlattensItsWeights(GaussianMixture):
    """The weights of an M step are π^0.95."""

    def maximize(self, statistics):
        super().maximize(statistics)
        with torch.no_grad():
            self.logits.mul_(0.95)


@breaks("fixed-point", event=PLANE)
class WidensItsCovariances(GaussianMixture):
    def maximize(self, statistics):
        super().maximize(statistics)
        with torch.no_grad():
            self.gaussians.log_diagonal.sub_(0.025)


@breaks("left-out", event=PLANE)
class KeepsItself(KDE):
    """An example that is left out has its kernel nevertheless."""

    def log_prob_without(self, x, left_out, *, generator=None):
        return self.log_prob(x)


@breaks("margins", event=BITS)
class FavoursWhatIsFrequent(Histogram):
    """Masses in proportion to n^1.05."""

    def maximize(self, statistics):
        super().maximize(statistics)
        self.log_mass.copy_((1.05 * self.log_mass).log_softmax(1))


def smoothed_frequencies(model, x, data):
    """(n + 1) / (N + K) over all values, of the data that the model was shown."""
    same = (x.flatten(1)[:, None] == data.x.flatten(1)[None]).all(2).sum(1).double()
    return ((same + 1) / (len(data) + math.prod(s.levels for s in model.event.columns))).log()


@breaks("oracle", event=LEVELS, oracle=smoothed_frequencies, joint="always")
class CountsOneInTwentyLess(Histogram):
    def maximize(self, statistics):
        super().maximize({k: 0.95 * v for k, v in statistics.items()})


# --- densities


@breaks("normalised", "loss-is-likelihood", event=BITS)
class AddsAConstant(MADE):
    def log_prob(self, x, **options):
        return super().log_prob(x, **options) + 1e-4

    def loss(self, batch, *, generator=None):
        return {"loss": -super().log_prob(batch.x).mean()}


@breaks("normalised", event=BITS, masks=3, order="random")
class AveragesLogits(MADE):
    """The conditionals of several orders averaged before the likelihood: a cycle, no density."""

    def log_prob(self, x, **options):
        logits = torch.stack([self.conditionals(x, order=m) for m in range(self.masks)]).mean(0).squeeze(-1)
        return -nn.functional.binary_cross_entropy_with_logits(logits, x.to(logits.dtype), reduction="none").sum(1)


@breaks("normalised", event=PLANE)
class ForgetsTheScale(MADE):
    """The density is that of standardised data."""

    def log_prob(self, x, **options):
        return super().log_prob(x, **options) + examples(PLANE, 64).x.std(0).log().sum()


@breaks("batch-independence", event=PLANE)
class CentresTheBatch(MADE):
    def log_prob(self, x, **options):
        return super().log_prob(x - 1e-3 * (x - x.mean(0)), **options)


@breaks("outside", event=LEVELS)
class ClampsToTheLevels(MADE):
    def log_prob(self, x, **options):
        return super().log_prob(x.clamp(0, 3), **options)


@breaks("outside", event=LEVELS)
class FloorsToTheLevels(MADE):
    def log_prob(self, x, **options):
        return super().log_prob(x.floor() if x.is_floating_point() else x, **options)


@breaks("outside", event=PLANE)
class RefusesNaN(MADE):
    def log_prob(self, x, **options):
        if not bool(x.isfinite().all()):
            raise ValueError("x is not finite")
        return super().log_prob(x, **options)


@breaks("outside", event=PLANE)
class PassesNaNBack(MADE):
    """The values are right; a gradient is 0 · NaN."""

    def log_prob(self, x, **options):
        found = super().log_prob(x, **options)
        scale = next(self.parameters()).sum()
        return found + torch.where(x.isfinite().all(1), 0 * (scale * x).sum(1), 0.0)


@breaks("outside", event=PLANE)
class SpoilsTheNeighbours(MADE):
    def log_prob(self, x, **options):
        found = super().log_prob(x, **options)
        return found + 1e-3 * (found == -torch.inf).sum()


@breaks("outside", event=PLANE)
class ClampsLargeNumbers(MADE):
    def log_prob(self, x, **options):
        return super().log_prob(torch.where(x.abs() == torch.inf, x, x.clamp(-1e38, 1e38)), **options)


@breaks("gradient", event=Event((3,), (REAL, Support("ordinal", 4), BINARY)))
class SlopesAlongALevel(GaussianMixture):
    def log_prob(self, x, **options):
        return super().log_prob(x, **options) + 0.1 * (x[:, 1] - x[:, 1].detach())


@breaks("gradient", event=BITS)
class LeavesOutAParameter(MADE):
    """log p is right, its gradient leaves one path out."""

    def log_prob(self, x, **options):
        first = next(self.parameters())
        return super().log_prob(x, **options) - 0.1 * (first.sin().sum() - first.sin().sum().detach())


@breaks("gradient", event=PLANE)
class ForgetsAnEntry(RealNVP):
    """The gradient in x stops at the first entry."""

    def log_prob(self, x, **options):
        return super().log_prob(torch.cat([x[:, :1].detach(), x[:, 1:]], 1), **options)


@breaks("loss-is-likelihood", event=BITS)
class AveragesOverEntries(MADE):
    def loss(self, batch, *, generator=None):
        return {"loss": super().loss(batch)["loss"] / self.event.dims}


@breaks("loss-is-likelihood", event=BITS, latent_dim=2)
class AveragesTheBoundOverEntries(VAE):
    def loss(self, batch, *, generator=None):
        return {"loss": super().loss(batch, generator=generator)["loss"] / self.event.dims}


@breaks("loss-is-likelihood", event=BITS, latent_dim=2)
class HasAPriorOfVarianceTwo(VAE):
    """KL(q ‖ N(0, 2)) in the loss: E_q[log N(z; 0, 1) − log N(z; 0, 2)] = E_q Σ ½ log 2 − ¼ z² too much."""

    def loss(self, batch, *, generator=None):
        terms = super().loss(batch, generator=generator)
        z, _ = self.draw_latents(batch, generator=generator)
        return terms | {"loss": terms["loss"] + (0.5 * math.log(2) - 0.25 * z.square()).sum(1)}


@breaks("loss-is-likelihood", event=BITS, latent_dim=2)
class WeighsTheKL(VAE):
    def loss(self, batch, *, generator=None):
        terms = super().loss(batch, generator=generator)
        return terms | {"loss": terms["loss"] - 0.5 * terms["kl"].mean()}


@breaks("loss-is-likelihood", event=BITS, latent_dim=2, samples=5)
class LearnsALooserBound(VAE):
    """The loss takes one sample of the five that its option says."""

    def loss(self, batch, *, generator=None):
        return {"loss": -self.log_prob(batch.x, generator=generator).mean()}


@breaks("bound-rises", "bound-tight", event=BITS, latent_dim=2)
class AveragesLogWeights(VAE):
    """The mean of log w where the importance-weighted bound has the log of the mean."""

    def log_prob(self, x, *, samples=1, generator=None, **options):
        return torch.stack([VAE.log_prob(self, x, generator=generator, **options) for _ in range(samples)]).mean(0)


@breaks("bound-mass", event=BITS, latent_dim=2)
class SumsTheWeights(VAE):
    def log_prob(self, x, *, samples=1, **options):
        return super().log_prob(x, samples=samples, **options) + math.log(samples)


# --- precision


@breaks("precision", event=PLANE)
class RoundsItsSamples(MADE):
    def sample(self, n, *, generator=None, temperature=1.0):
        return super().sample(n, generator=generator, temperature=temperature).float().to(self.event.dtype)


@breaks("precision", event=PLANE)
class SamplesInFloat32(MADE):
    def sample(self, n, *, generator=None, temperature=1.0):
        return super().sample(n, generator=generator, temperature=temperature).float()


@breaks("precision", event=LEVELS)
class LeavesItsSupport(Histogram):
    def sample(self, n, *, generator=None, temperature=1.0):
        return super().sample(n, generator=generator, temperature=temperature).float().to(self.event.dtype)


@breaks("half", event=BITS)
class OverflowsInHalf(MADE):
    def log_prob(self, x, **options):
        large = torch.full((len(x),), 1e5).to(self.dtype)
        return super().log_prob(x, **options) + large - large


@breaks("half", event=BITS)
class RefusesHalfWithoutAReason(MADE):
    def log_prob(self, x, **options):
        if self.dtype == torch.float16:
            raise CapabilityError("no")
        return super().log_prob(x, **options)


# --- autoregressive


@breaks("order", event=BITS)
class SeesItself(MADE):
    def conditionals(self, x, *, order=0):
        return super().conditionals(x, order=order) + 1e-3 * x[..., None].to(self.dtype)


@breaks("order", event=BITS)
class MissesItsNeighbour(MADE):
    """The last conditional does not see the entry before it."""

    def conditionals(self, x, *, order=0):
        x = torch.cat([x[:, :-2], x[:, -2:].detach()], 1)
        return super().conditionals(x, order=order)


@breaks("order", event=WIDE)
class DeniesItsBlindSpot(PixelCNN):
    def blind_spot(self, *, order=0):
        return torch.zeros_like(super().blind_spot(order=order))


@breaks("order", event=BITS)
class ClaimsABlindSpot(MADE):
    def blind_spot(self, *, order=0):
        blind = super().blind_spot(order=order)
        blind[-1, 0] = True
        return blind


@breaks("factorisation", event=PLANE)
class ForgetsTheFrontsScale(MADE):
    """The densities of the entries are those of the standardised data."""

    def log_conditionals(self, x, *, generator=None):
        return super().log_conditionals(x) + examples(PLANE, 64).x.std(0).log()


@breaks("factorisation", event=BITS)
class SplitsEvenly(MADE):
    """The sum is right, and no entry's part is."""

    def log_conditionals(self, x, *, generator=None):
        return (self.log_prob(x) / self.event.dims)[:, None].expand(-1, self.event.dims)


@breaks("factorisation", event=PIXELS, given=labels(3))
class WeighsClassesByTheWholeExample(PixelCNN):
    """Posterior weights see all entries, so that early ones know the later."""

    def log_conditionals(self, x, *, given=None, generator=None):
        if given is not None:
            return super().log_conditionals(x, given=given)
        each = torch.stack([PixelCNN.log_conditionals(self, x, given=torch.tensor([y])) for y in range(self.classes)])
        joint = each.sum(2).T + self.log_class_prior()
        mean = torch.einsum("bm,mbd->bd", joint.softmax(1), each)
        rest = self.log_prob(x) - mean.sum(1)
        return mean + rest[:, None] / self.event.dims


@breaks("factorisation", event=BITS)
class GivesNoParts(MADE):
    def log_conditionals(self, x, *, generator=None):
        return None


@breaks("fast-sampling", event=BITS)
class KeepsAStaleCache(MADE):
    frozen = None

    def sample(self, n, *, generator=None, temperature=1.0):
        if self.frozen is None:
            self.frozen = [copy.deepcopy(self)]
        return MADE.sample(self.frozen[0], n, generator=generator, temperature=temperature)


@breaks("fast-sampling", event=BITS)
class IgnoresTemperatureWhenFast(MADE):
    def sample(self, n, *, generator=None, temperature=1.0):
        return super().sample(n, generator=generator)


# --- flows


@breaks("inverse", event=PLANE)
class InvertsAnotherMap(RealNVP):
    def invert(self, z):
        return super().invert(z * (1 + 1e-4))


@breaks("log-determinant", event=PLANE)
class FlipsTheLogDeterminant(RealNVP):
    def transform(self, x):
        z, log_det = super().transform(x)
        return z, -log_det


@breaks("log-determinant", event=PLANE)
class DropsTheFrontsJacobian(RealNVP):
    def transform(self, x):
        z, log_det = super().transform(x)
        return z, log_det - self.front(x)[1]


@breaks("change-of-variables", "normalised", event=PLANE)
class SubtractsTheLogDeterminant(RealNVP):
    def log_prob(self, x, **options):
        z, log_det = self.transform(x)
        return self.base_log_prob(z) - log_det


# --- sampling


@breaks("support", event=BITS)
class SamplesOffTheSupport(MADE):
    def sample(self, n, *, generator=None, temperature=1.0):
        return 2 * super().sample(n, generator=generator, temperature=temperature)


@breaks("support", event=BITS)
class SamplesFloats(MADE):
    def sample(self, n, *, generator=None, temperature=1.0):
        return super().sample(n, generator=generator, temperature=temperature).float()


@breaks("entropy", "frequencies", event=BITS)
class SamplesCold(MADE):
    def sample(self, n, *, generator=None, temperature=1.0):
        return super().sample(n, generator=generator, temperature=0.8 * temperature)


@breaks("entropy", "moments", event=PLANE)
class SamplesColdReals(MADE):
    def sample(self, n, *, generator=None, temperature=1.0):
        return super().sample(n, generator=generator, temperature=0.8 * temperature)


@breaks("frequencies", event=Event((3,), BINARY), latent_dim=2)
class SamplesInReverse(VAE):
    def sample(self, n, *, generator=None, temperature=1.0):
        return super().sample(n, generator=generator, temperature=temperature).flip(1)


@breaks("frequencies", event=LEVELS)
class SamplesColdFromAFlow(RealNVP):
    def sample(self, n, *, generator=None, temperature=1.0):
        return super().sample(n, generator=generator, temperature=0.5 * temperature)


@breaks("temperature", event=BITS)
class IgnoresTemperature(MADE):
    def sample(self, n, *, generator=None, temperature=1.0):
        return super().sample(n, generator=generator)


@breaks("temperature", event=BITS)
class HeatsInsteadOfCooling(MADE):
    def sample(self, n, *, generator=None, temperature=1.0):
        return super().sample(n, generator=generator, temperature=1 / temperature)


@breaks("temperature", event=BITS)
class IsColdByDefault(MADE):
    def sample(self, n, *, generator=None, temperature=0.9):
        return super().sample(n, generator=generator, temperature=temperature)


@breaks("tempered", event=BITS)
class SquaresTheTemperature(MADE):
    def sample(self, n, *, generator=None, temperature=1.0):
        return super().sample(n, generator=generator, temperature=temperature**2)


@breaks("tempered", event=BITS)
class SquaresTheTemperatureOfATable(Histogram):
    def sample(self, n, *, generator=None, temperature=1.0):
        return super().sample(n, generator=generator, temperature=temperature**2)


@breaks("tempered", event=PLANE)
class SquaresTheTemperatureOfAFlow(RealNVP):
    def sample(self, n, *, generator=None, temperature=1.0):
        return super().sample(n, generator=generator, temperature=temperature**2)


@breaks("tempered", event=PIXELS, given=labels(3))
class TempersTheWholePicture(PixelCNN):
    """Draws from p(x)^(1/T) / Z, where each entry is to be tempered given those before it."""

    def sample(self, n, *, given=None, generator=None, temperature=1.0):
        if given is not None or temperature == 1:
            return super().sample(n, given=given, generator=generator, temperature=temperature)
        x = torch.cartesian_prod(*[torch.arange(2)] * self.event.dims).view(-1, *self.event.shape)
        log_p = torch.stack([self.log_prob(x, given=torch.tensor([y])) for y in range(self.classes)])
        label = self.draw_condition(n, generator)
        rows = (log_p / temperature).softmax(1)[label].multinomial(1, generator=generator)[:, 0]
        return x[rows].to(self.event.dtype)


# --- completion, conditions, classes


@breaks("completion", event=PIXELS)
class PastesTheKnownPart(PixelCNN):
    """Draws without looking at what is known."""

    def complete(self, x, known, *, given=None, generator=None):
        return torch.where(known, x, self.sample(len(x), generator=generator))


@breaks("completion", event=PIXELS)
class RedrawsTheKnownPart(PixelCNN):
    def complete(self, x, known, *, given=None, generator=None):
        return self.sample(len(x), generator=generator)


@breaks("completion", event=Event((2,), REAL), components=2)
class CompletesFromTheComponentAlone(GaussianMixture):
    """The component is right, but within it the known entries are ignored."""

    @torch.no_grad()
    def complete(self, x, known, *, generator=None):
        component = self.encode(torch.where(known, x, 0.0)).argmax(1)
        return torch.where(known, x, self.draw(component, generator))


@breaks("completion", event=Event((3,), Support("nominal", 3)), joint="always")
class CompletesByTheUnknownValues(Histogram):
    def complete(self, x, known, *, generator=None):
        return torch.where(known, x, (super().complete(x, known, generator=generator) + x) % 3)


@breaks("completion", event=Event((3,), Support("nominal", 3)), joint="always")
class CompletesEachEntryAlone(Histogram):
    """Unknown entries follow their margins."""

    def complete(self, x, known, *, generator=None):
        return torch.where(known, x, self.sample(len(x), generator=generator))


@breaks("marginals", event=Event((2,), REAL), components=2, covariance="full")
class LocatesByTheComponentsAlone(GaussianMixture):
    """The weights are right, but within a component the known entries are ignored."""

    def marginals(self, x, known):
        for entry, rows, own in super().marginals(x, known):
            means, log_std = self.gaussians.means[:, entry], -self.gaussians.log_diagonal[:, entry]
            yield entry, rows, GaussianIntervals(own.log_weights.squeeze(1), means, log_std, own.centre, own.spread)


@breaks("marginals", event=Event((3,), Support("nominal", 3)), joint="always")
class LocatesEachEntryAlone(Histogram):
    def marginals(self, x, known):
        return super().marginals(x, torch.zeros_like(known))


@breaks("class-mixture", event=PIXELS, given=labels(3))
class MixesLogarithms(PixelCNN):
    def log_prob(self, x, *, given=None, **options):
        if given is not None:
            return super().log_prob(x, given=given, **options)
        return torch.stack([PixelCNN.log_prob(self, x, given=torch.tensor([y])) for y in range(self.classes)]).mean(0)


@breaks("class-frequencies", event=PIXELS, given=labels(3))
class MixesUpTheLabels(PixelCNN):
    def sample(self, n, *, given=None, generator=None, temperature=1.0):
        given = given if given is None else given.roll(1)
        return super().sample(n, given=given, generator=generator, temperature=temperature)


@breaks("class-prior", event=PIXELS, given=labels(3))
class LeavesThePriorUniform(PixelCNN):
    def count_condition(self, batch):
        pass


@breaks("class-prior", event=PIXELS, given=labels(3))
class DrawsClassesAlike(PixelCNN):
    def sample(self, n, *, given=None, generator=None, temperature=1.0):
        if given is None:
            given = torch.randint(self.classes, (n,), generator=generator)
        return super().sample(n, given=given, generator=generator, temperature=temperature)


@breaks("class-prior", event=PIXELS, given=labels(3))
class MixesClassesAlike(PixelCNN):
    def log_prob(self, x, *, given=None, **options):
        if given is not None:
            return super().log_prob(x, given=given, **options)
        each = torch.stack([PixelCNN.log_prob(self, x, given=torch.tensor([y])) for y in range(self.classes)])
        return each.logsumexp(0) - math.log(self.classes)


@breaks("conditions", event=PIXELS, given=labels(3))
class TakesTheFirstConditionOnly(PixelCNN):
    def sample(self, n, *, given=None, generator=None, temperature=1.0):
        given = given if given is None or not given.ndim else given[:1]
        return super().sample(n, given=given, generator=generator, temperature=temperature)


@breaks("conditions", event=PIXELS, given=labels(3))
class ClampsItsConditions(PixelCNN):
    def log_prob(self, x, *, given=None, **options):
        return super().log_prob(x, given=given if given is None else given.clamp(0, 2), **options)


@breaks("conditions", event=PIXELS)
class TakesConditionsItCannotUse(PixelCNN):
    def sample(self, n, *, given=None, generator=None, temperature=1.0):
        return super().sample(n, generator=generator, temperature=temperature)


# --- energies and scores


@breaks("energies", event=PLANE)
class CentresItsEnergies(EBM):
    def energy(self, x):
        energy = super().energy(x)
        return energy - energy.mean()


@breaks("energies", event=PLANE)
class TakesAnyWidthOfEnergy(EBM):
    def energy(self, x):
        return super().energy(x[..., :2].reshape(-1, 2))


@breaks("score-is-gradient", event=PLANE)
class ScoreClimbsTheEnergy(EBM):
    def score(self, x):
        return -super().score(x)


@breaks("score-is-gradient", event=PLANE)
class ScoreIsOfScaledData(EBM):
    def score(self, x):
        return super().score(x) * self.net.front.std


@breaks("score-is-gradient", event=PLANE)
class DetachesItsEnergy(EBM):
    """Autograd agrees with the score; the energy itself does not."""

    def energy(self, x):
        return super().energy(x) + 0.01 * x.detach().square().flatten(1).sum(1)


@breaks("contrast", event=PLANE)
class RaisesTheEnergyOfData(EBM):
    def loss(self, batch, *, generator=None):
        terms = super().loss(batch, generator=generator)
        return terms | {"loss": -terms["loss"]}


@breaks("contrast", "likelihood-rises", event=BITS)
class FlipsItsSign(RBM):
    def loss(self, batch, *, generator=None):
        terms = super().loss(batch, generator=generator)
        return terms | {"loss": -terms["loss"]}


def _twin(generator):
    """A generator in the same state."""
    return torch.Generator().set_state(generator.get_state())


@breaks("negatives", event=BITS)
class DropsHalfAVisibleBias(RBM):
    def loss(self, batch, *, generator=None):
        data, ends = self.contrast(batch, generator=_twin(generator))
        terms = super().loss(batch, generator=generator)
        return terms | {"loss": terms["loss"] + 0.5 * (data.mean(0) - ends.mean(0)) @ self.visible_bias}


@breaks("negatives", event=BITS, persistent=False)
class DropsHalfAVisibleBiasAtTheData(RBM):
    def loss(self, batch, *, generator=None):
        terms = super().loss(batch, generator=generator)
        return terms | {"loss": terms["loss"] + 0.5 * batch.x.to(self.dtype).mean(0) @ self.visible_bias}


@breaks("negatives", event=PLANE)
class WeighsItsNegativesByHalf(EBM):
    def loss(self, batch, *, generator=None):
        _, ends = self.contrast(batch, generator=_twin(generator))
        terms = super().loss(batch, generator=generator)
        return terms | {"loss": terms["loss"] + 0.5 * self.point_energy(ends).mean()}


@breaks("negatives", event=PLANE, regularizer=0.1)
class RewardsLargeEnergies(EBM):
    def loss(self, batch, *, generator=None):
        data, ends = self.contrast(batch, generator=_twin(generator))
        terms = super().loss(batch, generator=generator)
        squares = self.point_energy(data).square().mean() + self.point_energy(ends).square().mean()
        return terms | {"loss": terms["loss"] - 0.3 * squares}


@breaks("negatives", event=BITS, persistent=False)
class ContrastsDataWithItself(RBM):
    def contrast(self, batch, *, generator=None):
        data, _ = super().contrast(batch, generator=generator)
        return data, data


@breaks("gaussian-score", event=PLANE, method="exact")
class HalvesTheTrace(ScoreMatching):
    share = 0.5

    def loss(self, batch, *, generator=None):
        norm, trace = exact_score_matching(lambda y: score_of(self.energy, y, graph=True), batch.x)
        return {"loss": (norm + self.share * trace).mean()}


@breaks("gaussian-score", event=PLANE, method="exact")
class FlipsTheTrace(ScoreMatching):
    def loss(self, batch, *, generator=None):
        norm, trace = exact_score_matching(lambda y: score_of(self.energy, y, graph=True), batch.x)
        return {"loss": (norm - trace).mean()}


# --- players


@breaks("players", event=PLANE)
class MovesTheGeneratorWithItsCritic(GAN):
    """The fakes are not detached in the critic's loss."""

    def critic_loss(self, batch, *, generator=None):
        real, fake = self.scaled(batch.x), self.fakes(len(batch), generator=generator)
        return {"loss": discriminator_loss(self.players_loss, self.critic(real), self.critic(fake))}


@breaks("players", event=PLANE)
class DetachesItsFakes(GAN):
    """Nothing goes back to the generator from its own loss."""

    def generator_loss(self, batch, *, generator=None):
        logit = self.critic(self.fakes(len(batch), generator=generator).detach())
        return {"loss": generator_loss(self.players_loss, logit)}


@breaks("players", event=PLANE, loss="wgan-gp")
class PenalisesWithoutAGraph(GAN):
    """The penalty has its value in the loss, and no gradient."""

    def critic_loss(self, batch, *, generator=None):
        terms = super().critic_loss(batch, generator=generator)
        lost = self.penalty * gradient_penalty(
            self.critic, self.scaled(batch.x), self.fakes(len(batch), generator=generator), generator
        )
        return terms | {"loss": terms["loss"] - lost + lost.detach()}


@breaks("averaged-generator", event=PLANE)
class AveragesItsCritic(GAN):
    def averaged(self):
        return (self,)


@breaks("averaged-generator", event=PLANE)
class AveragesHalfAGenerator(GAN):
    def averaged(self):
        return (self.generator[0],)


def _flips_the_generator(loss: str):
    class FlipsTheGenerator(GAN):
        def generator_loss(self, batch, *, generator=None):
            terms = super().generator_loss(batch, generator=generator)
            return terms | {"loss": -terms["loss"]}

    return breaks("opposition", event=PLANE, loss=loss)(FlipsTheGenerator)


for name in ("minimax", "non-saturating", "least-squares", "hinge", "wgan", "wgan-gp"):
    _flips_the_generator(name)


def test_the_law_of_opposition_sees_translators_that_help_the_critics(monkeypatch):
    """The adversarial terms with their sign flipped: the distance of the critics' scores from 1 is maximised."""
    case = law_cases("cyclegan")[-1]
    (before,) = case.check(laws=("opposition",)).outcomes
    loss = CycleGAN.translators_loss

    def flipped(self, batch, *, generator=None):
        terms = loss(self, batch, generator=generator)
        return terms | {"loss": -terms["loss"]}

    monkeypatch.setattr(CycleGAN, "translators_loss", flipped)
    (after,) = case.check(laws=("opposition",)).outcomes
    assert (before.status, after.status) == ("passed", "failed")


@breaks("colouring", event=Event((3, 4, 4), Support("ordinal", 256)))
class AveragesChannels(Colorization):
    """A grey picture of the mean of the channels has another lightness."""

    def translate(self, x, *, to):
        if to == "b":
            return super().translate(x, to=to)
        return x.double().mean(1, keepdim=True).round().expand_as(x).to(x.dtype)


@breaks("colouring", event=Event((3, 4, 4), Support("ordinal", 256)))
class ClipsChannels(Colorization):
    """Colours outside the gamut are clipped channel by channel, which changes the lightness."""

    def _of_lab(self, lab):
        levels = srgb_of_linear(linear_of_lab(lab + torch.tensor([0.0, 60, 60]).view(3, 1, 1))).clamp(0, 1)
        return (255 * levels).round().to(torch.uint8) if lab[:, 1:].any() else super()._of_lab(lab)


class Penalised(GAN):
    """WGAN-GP's critic with a penalty at points of the class's choice."""

    @staticmethod
    def points(real, fake, epsilon):
        return epsilon * real + (1 - epsilon) * fake

    def critic_loss(self, batch, *, generator=None):
        real, fake = self.scaled(batch.x), self.fakes(len(batch), generator=generator).detach()
        epsilon = torch.rand(len(real), 1, generator=generator, dtype=real.dtype)
        at = self.points(real, fake, epsilon).requires_grad_()
        loss = discriminator_loss(self.players_loss, self.critic(real), self.critic(fake)).mean()
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(self.critic(at).sum(), at, create_graph=True)
        return {"loss": loss + self.penalty * (slope.norm(dim=1) - 1).square().mean()}


@breaks("gradient-penalty", event=PLANE, loss="wgan-gp")
class PenalisesAtTheData(Penalised):
    @staticmethod
    def points(real, fake, epsilon):
        return real.clone()


@breaks("gradient-penalty", event=PLANE, loss="wgan-gp")
class PenalisesAtTheFakes(Penalised):
    @staticmethod
    def points(real, fake, epsilon):
        return fake.clone()


@breaks("gradient-penalty", event=PLANE, loss="wgan-gp")
class SharesOneEpsilon(Penalised):
    @staticmethod
    def points(real, fake, epsilon):
        return epsilon[0] * real + (1 - epsilon[0]) * fake


@breaks("gradient-penalty", event=PLANE, loss="wgan-gp")
class HasAnEpsilonAnEntry(Penalised):
    @staticmethod
    def points(real, fake, epsilon):
        epsilon = torch.cat([epsilon, epsilon.flip(0)], 1)
        return epsilon * real + (1 - epsilon) * fake


@breaks("gradient-penalty", event=PLANE, loss="wgan-gp")
class AddsNoiseToTheData(Penalised):
    """DRAGAN's penalty, around the data."""

    @staticmethod
    def points(real, fake, epsilon):
        return real + 0.5 * epsilon


# --- partition functions


@breaks("partition", event=BITS)
class ForgetsThatHiddenUnitsMayBeOff(RBM):
    def energy(self, x):
        w, b, c = self.interaction()
        v = x.flatten(1).to(self.dtype)
        return -(v @ b) - (v @ w + c).sum(1)


@breaks("partition", event=BITS)
class LeavesOutTheLastState(RBM):
    def estimate_log_partition(self, *, effort=1, generator=None):
        total, error = super().estimate_log_partition(effort=effort, generator=generator)
        last = -float(self.energy(torch.ones(1, *self.event.shape)))
        return total + math.log1p(-math.exp(last - total)), error


@breaks("partition", event=BITS)
class HoldsAnotherError(RBM):
    @property
    def log_partition_error(self):
        return 0.5


@breaks("partition", event=BITS)
class AddsLogZ(RBM):
    def log_prob(self, x, **options):
        return super().log_prob(x, **options) + 0.1


@breaks("partition-of-these-parameters", event=BITS)
class KeepsItsLogZ(RBM):
    """log p of the energy now, with the log Z of when it was estimated."""

    kept = None

    def estimate_log_partition(self, *, effort=1, generator=None):
        self.kept, error = super().estimate_log_partition(effort=effort, generator=generator)
        return self.kept, error

    def log_prob(self, x, **options):
        return super().log_prob(x, **options) if self.kept is None else -self.energy(x).double() - self.kept


# --- shared work


class Noisy(MADE):
    """A loss with noise of the shape (B, D) in it."""

    def noise(self, shape, like, generator):
        return random.normal(shape, generator, like=like)

    def loss(self, batch, *, generator=None):
        noise = self.noise(batch.x.shape, next(self.parameters()), generator)
        scale = next(self.parameters()).square().mean()
        return {"loss": -self.log_prob(batch.x) + scale * (noise * batch.x).sum(1)}


@breaks("processes", "accumulation", "draws", event=BITS)
class DrawsByItself(Noisy):
    def noise(self, shape, like, generator):
        return torch.randn(shape, generator=generator, dtype=like.dtype)


@breaks("processes", event=BITS)
class GuessesTheAxisBySize(Noisy):
    """Noise is of examples where an axis is as long as the batch, whichever comes last."""

    def noise(self, shape, like, generator):
        rows = random.rows_at_hand()
        fits = [i for i, n in enumerate(shape) if rows is not None and n == rows.count]
        return random.normal(shape, generator, like=like, axis=fits[-1] if fits else None)


@breaks("processes", event=BITS)
class CentresOverItsOwnRows(MADE):
    def loss(self, batch, *, generator=None):
        each = -self.log_prob(batch.x)
        return {"loss": each.mean() + each.var()}


@breaks("processes", event=BITS)
class KeepsStateOfItsOwnRows(MADE):
    def __init__(self, event: Event, *, hidden: tuple[int, ...] = (8,), components: int = 3) -> None:
        super().__init__(event, hidden=hidden, components=components)
        self.register_buffer("seen", torch.zeros(event.dims))

    def loss(self, batch, *, generator=None):
        self.seen.copy_(batch.x.to(self.seen.dtype).mean(0))
        return super().loss(batch, generator=generator)


@breaks("accumulation", event=BITS)
class CouplesItsExamples(MADE):
    def loss(self, batch, *, generator=None):
        each = -self.log_prob(batch.x)
        return {"loss": each + (each - each.mean()).square()}


# --- the runner itself


def test_the_callers_model_is_left_as_it_was():
    model = MADE(BITS, hidden=(8,)).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    check_model(model, examples(BITS, 64))
    assert model.training
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert all(p.grad is None and p.dtype == torch.float32 for p in model.parameters())


def test_reports_are_repeatable_and_leave_the_global_generator_alone():
    state = torch.random.get_rng_state()
    reports = [Case("made", BITS).check(laws=("frequencies", "descent")) for _ in range(2)]
    assert torch.equal(state, torch.random.get_rng_state())
    assert [(o.status, o.detail) for o in reports[0].outcomes] == [(o.status, o.detail) for o in reports[1].outcomes]


def test_a_failure_is_raised_and_printed_with_its_law():
    report = check_model(AddsAConstant(BITS, hidden=(8,)), examples(BITS, 64), laws=["normalised", "inverse"])
    assert not report.ok
    assert [o.status for o in report.outcomes] == ["failed", "not-applicable"]
    assert "normalised  failed" in str(report)
    with pytest.raises(LawViolation, match=r"normalised: the total mass is 1\.0001"):
        report.raise_for_failures()


class Childs(RBM):
    """A subclass without a row of its own, which inherits its parent's exceptions."""


class ChildsChild(Childs):
    pass


def test_a_subclass_inherits_the_exceptions_that_its_parents_rows_declare(monkeypatch):
    entry = replace(row("rbm"), name="childs", target=f"{__name__}:Childs", exceptions={"state": "for a reason"})
    monkeypatch.setitem(unsup.core.rows._ROWS, "childs", entry)
    report = check_model(ChildsChild(BITS, hidden=4), examples(BITS, 64), laws=["descent", "state", "encode"])
    assert [o.status for o in report.outcomes] == ["excepted", "excepted", "passed"]
    assert [o.detail for o in report.outcomes[:2]] == [row("rbm").exceptions["descent"], "for a reason"]


def test_the_law_of_the_oracle_needs_one():
    (outcome,) = check_model(MADE(BITS, hidden=(8,)), examples(BITS, 64), laws=["oracle"]).outcomes
    assert outcome.status == "not-applicable"


def test_an_exception_is_shown_with_its_reason_and_not_run():
    report = check_model(
        AddsAConstant(BITS, hidden=(8,)),
        examples(BITS, 64),
        laws=["normalised"],
        exceptions={"normalised": "off by design"},
    )
    assert report.ok
    assert (report.outcomes[0].status, report.outcomes[0].detail) == ("excepted", "off by design")


def test_an_unknown_law_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'normalised'"):
        check_model(MADE(BITS, hidden=(8,)), examples(BITS, 64), laws=["normalized"])
