"""Each law catches a model that was broken on purpose, and passes the model that it was made from."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import nn

import unsup.families
from unsup.core.errors import InputError
from unsup.core.event import BINARY, REAL, Event, Support
from unsup.core.model import Objective
from unsup.core.registry import Row, row
from unsup.families.adversarial.gan import GAN
from unsup.families.autoregressive.made import MADE
from unsup.families.autoregressive.pixelcnn import PixelCNN
from unsup.families.classical.gaussian_mixture import GaussianMixture
from unsup.families.classical.histogram import Histogram
from unsup.families.energy.ebm import EBM
from unsup.families.energy.rbm import RBM
from unsup.families.flows.realnvp import RealNVP
from unsup.families.latent.vae import VAE
from unsup.prob.adversarial import discriminator_loss, generator_loss, gradient_penalty
from unsup.testing import LAWS, Case, LawViolation, check_model, examples

BITS, PLANE, PIXELS = Event((5,), BINARY), Event((2,), REAL), Event((1, 2, 3), BINARY)
WIDE = Event((1, 6, 6), BINARY)
BREAKS: list = []


def breaks(*laws: str, event: Event, classes: int = 0, **options):
    """The decorated class breaks each of ``laws``; its parent is the control."""

    options |= {"classes": classes} if classes else {}

    def register(cls):
        BREAKS.extend(pytest.param(law, cls, event, classes, options, id=f"{law}-{cls.__name__}") for law in laws)
        return cls

    return register


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    """Broken classes have rows while a test runs, so that they can be saved."""
    for parameter in BREAKS:
        cls = parameter.values[1]
        entry = Row(cls.__name__, f"{cls.__module__}:{cls.__qualname__}", "broken", "", (), "", row("made").paper)
        monkeypatch.setitem(unsup.families.ROWS, cls.__name__, entry)


@pytest.mark.parametrize(("law", "cls", "event", "classes", "options"), BREAKS)
def test_law_catches_the_broken_model_and_passes_its_parent(law, cls, event, classes, options):
    data = examples(event, 64, classes=classes)
    outcomes = {}
    for which in (cls, cls.__mro__[1]):
        torch.manual_seed(0)
        model = which(event, **(options | {k: v for k, v in which.presets["tiny"].items() if k not in options}))
        (outcomes[which],) = check_model(model, data, laws=[law]).outcomes
    assert outcomes[cls].status == "failed"
    assert not outcomes[cls].detail.startswith("raised"), "the model crashed; the law did not catch it"
    assert outcomes[cls.__mro__[1]].status == "passed", outcomes[cls.__mro__[1]].detail


def test_every_law_has_a_broken_model():
    assert {parameter.values[0] for parameter in BREAKS} == set(LAWS)


# --- configuration, files, state, manners


@breaks("configuration", event=BITS)
class RecordsAnotherWidth(MADE):
    def __init__(self, event: Event, *, hidden: tuple[int, ...] = (8,), components: int = 3) -> None:
        super().__init__(event, hidden=hidden, components=components)
        self.config["hidden"] = tuple(2 * width for width in hidden)


@breaks("save-load", event=BITS)
class ForgetsABuffer(Histogram):
    def __init__(self, event: Event, *, bins: int = 8) -> None:
        super().__init__(event, bins=bins)
        table = self.log_mass
        del self.log_mass
        self.register_buffer("log_mass", table, persistent=False)


@breaks("save-load", event=BITS)
class LeavesAPickle(MADE):
    def save(self, folder: str) -> None:
        super().save(folder)
        (Path(folder) / "weights.pkl").write_bytes(b"")


@breaks("state", event=BITS)
class CountsItsCalls(MADE):
    def log_prob(self, x, *, samples=1, generator=None):
        self.next_mask += 1
        return super().log_prob(x, samples=samples, generator=generator)


@breaks("no-memory", event=BITS)
class KeepsItsFirstAnswer(MADE):
    answer = None

    def log_prob(self, x, *, samples=1, generator=None):
        if self.answer is None:
            self.answer = super().log_prob(x).detach()
        return self.answer


@breaks("global-random-state", "same-seed", event=BITS)
class SamplesFromTheGlobalGenerator(MADE):
    def sample(self, n, *, generator=None, temperature=1.0):
        return super().sample(n, temperature=temperature)


@breaks("same-seed", event=BITS)
class AlwaysDrawsTheSame(MADE):
    def sample(self, n, *, generator=None, temperature=1.0):
        return super().sample(n, generator=torch.Generator().manual_seed(0), temperature=temperature)


class Refuses(MADE):
    def log_prob(self, x, *, samples=1, generator=None):
        self.event.check_shape(x)
        return super().log_prob(x, samples=samples, generator=generator)


@breaks("wrong-shape", event=BITS)
class TakesAnyWidth(Refuses):
    def log_prob(self, x, *, samples=1, generator=None):
        return super().log_prob(x[..., : self.event.dims].view(-1, self.event.dims))


@breaks("wrong-shape", event=BITS)
class CrashesOnAnotherWidth(Refuses):
    def log_prob(self, x, *, samples=1, generator=None):
        return MADE._log_prob_in_order(self, x, 0, samples, generator) if x.ndim == 2 else super().log_prob(x)


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
        return Objective("first", self.loss, own), Objective("second", self.loss, own[:1])


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


@breaks("descent", event=BITS)
class MaximisesItsLoss(MADE):
    def loss(self, batch, *, generator=None):
        loss = super().loss(batch)["loss"]
        return {"loss": -loss if self.training else loss}


@breaks("descent", event=BITS)
class LossHasTheWrongSign(MADE):
    def loss(self, batch, *, generator=None):
        return {"loss": -super().loss(batch)["loss"]}


@breaks("additive-statistics", event=PLANE)
class AveragesStatistics(GaussianMixture):
    def statistics(self, batch, *, generator=None):
        sums = super().statistics(batch, generator=generator)
        return {k: v if k == "count" else v / len(batch) for k, v in sums.items()}


@breaks("ascent", event=PLANE)
class ShrinksItsMeans(GaussianMixture):
    turn = 0

    def maximize(self, statistics):
        super().maximize(statistics)
        self.turn += 1
        with torch.no_grad():
            self.means.mul_(1 - 0.05 * self.turn)


@breaks("ascent", event=BITS)
class NeverLearns(Histogram):
    def maximize(self, statistics):
        pass


# --- densities


@breaks("normalised", "loss-is-likelihood", event=BITS)
class AddsAConstant(MADE):
    def log_prob(self, x, *, samples=1, generator=None):
        return super().log_prob(x) + 1e-4

    def loss(self, batch, *, generator=None):
        return {"loss": -super().log_prob(batch.x).mean()}


@breaks("normalised", event=BITS, masks=3, order="random")
class AveragesLogits(MADE):
    """The conditionals of several orders averaged before the likelihood: a cycle, no density."""

    def log_prob(self, x, *, samples=1, generator=None):
        logits = torch.stack([self.conditionals(x, order=m) for m in range(self.masks)]).mean(0).squeeze(-1)
        return -nn.functional.binary_cross_entropy_with_logits(logits, x.to(logits.dtype), reduction="none").sum(1)


@breaks("normalised", event=PLANE)
class ForgetsTheScale(MADE):
    def log_prob(self, x, *, samples=1, generator=None):
        return super().log_prob(x) + self.front.std.log().sum()


@breaks("batch-independence", event=PLANE)
class CentresTheBatch(MADE):
    def log_prob(self, x, *, samples=1, generator=None):
        return super().log_prob(x - 1e-3 * (x - x.mean(0)))


@breaks("loss-is-likelihood", event=BITS)
class AveragesOverEntries(MADE):
    def loss(self, batch, *, generator=None):
        return {"loss": super().loss(batch)["loss"] / self.event.dims}


@breaks("loss-is-likelihood", event=BITS, latent_dim=2)
class AveragesTheBoundOverEntries(VAE):
    def loss(self, batch, *, generator=None):
        return {"loss": super().loss(batch, generator=generator)["loss"] / self.event.dims}


@breaks("bound-rises", "bound-tight", event=BITS, latent_dim=2)
class AveragesLogWeights(VAE):
    """The mean of log w where the importance-weighted bound has the log of the mean."""

    def log_prob(self, x, *, samples=1, generator=None):
        return torch.stack([VAE.log_prob(self, x, generator=generator) for _ in range(samples)]).mean(0)


@breaks("bound-mass", event=BITS, latent_dim=2)
class SumsTheWeights(VAE):
    def log_prob(self, x, *, samples=1, generator=None):
        return super().log_prob(x, samples=samples, generator=generator) + math.log(samples)


# --- autoregressive


@breaks("order", event=BITS)
class SeesItself(MADE):
    """The mask of the direct connections is off by one: m(d) ≥ m instead of m(d) > m."""

    def __init__(self, event: Event, *, hidden: tuple[int, ...] = (8,), components: int = 3) -> None:
        super().__init__(event, hidden=hidden, components=components)
        self.direct.strict = False


@breaks("order", event=BITS)
class MissesItsNeighbour(MADE):
    """Off by one the other way: the last conditional does not see the entry before it."""

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
        return self._real_entries(self.front(x)[0], 0)


@breaks("factorisation", event=BITS)
class SplitsEvenly(MADE):
    """The sum is right, and no entry's part is."""

    def log_conditionals(self, x, *, generator=None):
        return (self.log_prob(x) / self.event.dims)[:, None].expand(-1, self.event.dims)


@breaks("factorisation", event=PIXELS, classes=3)
class WeighsClassesByTheWholeExample(PixelCNN):
    """Posterior weights see all entries, so that early ones know the later."""

    def log_conditionals(self, x, *, generator=None):
        each = [self._entry_log_prob(x, torch.full((len(x),), y)).flatten(1) for y in range(self.classes)]
        joint = torch.stack([e.sum(1) for e in each], 1) + self.log_prior
        mean = torch.einsum("bm,mbd->bd", joint.softmax(1), torch.stack(each))
        rest = self.log_prob(x) - mean.sum(1)
        return mean[:, self.orders[0]] + rest[:, None] / self.event.dims


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
    def log_prob(self, x, *, samples=1, generator=None):
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


@breaks("frequencies", event=Event((3,), Support("ordinal", 4)))
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


# --- completion and classes


@breaks("completion", event=PIXELS)
class PastesTheKnownPart(PixelCNN):
    """Draws without looking at what is known."""

    def complete(self, x, known, *, generator=None):
        return torch.where(known, x, self.sample(len(x), generator=generator))


@breaks("completion", event=PIXELS)
class RedrawsTheKnownPart(PixelCNN):
    def complete(self, x, known, *, generator=None):
        return self.sample(len(x), generator=generator)


@breaks("class-mixture", event=PIXELS, classes=3)
class MixesLogarithms(PixelCNN):
    def log_prob(self, x, *, samples=1, generator=None):
        each = [self.log_prob_given(x, torch.full((len(x),), y)) for y in range(self.classes)]
        return torch.stack(each).mean(0)


@breaks("class-frequencies", event=PIXELS, classes=3)
class MixesUpTheLabels(PixelCNN):
    def sample_given(self, label, *, generator=None, temperature=1.0):
        return super().sample_given(label.roll(1), generator=generator, temperature=temperature)


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


# --- the runner itself


def test_the_callers_model_is_left_as_it_was():
    model = MADE(BITS, hidden=(8,)).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    check_model(model, examples(BITS, 64))
    assert model.training
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert all(p.grad is None and p.dtype == torch.float32 for p in model.parameters())


# --- partition functions


@breaks("partition", event=BITS)
class ForgetsThatHiddenUnitsMayBeOff(RBM):
    def energy(self, x):
        w, b, c = self.interaction()
        v = self._bits(x)
        return -(v @ b) - (v @ w + c).sum(1)


@breaks("partition", event=BITS)
class LeavesOutTheLastState(RBM):
    def _enumerate(self):
        total, last = super()._enumerate(), -float(self.energy(torch.ones(1, *self.event.shape)))
        return total + math.log1p(-math.exp(last - total))


@breaks("partition", event=BITS)
class HoldsAnotherError(RBM):
    @property
    def log_partition_error(self):
        return 0.5


@breaks("partition", event=BITS)
class AddsLogZ(RBM):
    def log_prob(self, x, *, samples=1, generator=None):
        return super().log_prob(x) + 2 * self.log_partition[0]


@breaks("partition-of-these-parameters", event=BITS)
class KeepsItsLogZ(RBM):
    def _is_current(self):
        return True


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
