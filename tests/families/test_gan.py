"""The GAN against optima in closed form, hand-written loops and the trainer's own trajectory."""

from __future__ import annotations

import math
import os
import signal

import pytest
import torch
from torch import Tensor, nn

import unsup
from unsup import Batch, Event, InputError, Support, create
from unsup.core.event import REAL, labels
from unsup.data.source import Data, Split
from unsup.families.adversarial.gan import GAN

BINARY = Support("binary")
LEVELS = Event((1,), Support("ordinal", 4))
# Ten examples of four levels, and ten fakes; p/(p+q) of each level.
REALS, FAKES = torch.tensor([0, 1, 1, 2, 2, 2, 3, 3, 3, 3]), torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2, 3])
P, Q = REALS.bincount() / 10, FAKES.bincount() / 10


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Table(nn.Module):
    """A critic with one free logit for each of the four levels, whose thresholds on [−1, 1] are −½, 0 and ½."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(4, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.logits[((x[:, 0] + 1) * 2).long().clamp(0, 3)]


def free_critic(fakes: Tensor = FAKES, **options) -> tuple[GAN, Table]:
    """A GAN of one ordinal entry whose critic is a table and whose generator gives the levels ``fakes``."""
    model = GAN(LEVELS, **options).double()
    model.critic = table = Table()
    model.fakes = lambda n, **options: (2 * fakes[:n, None] + 1) / 4.0 - 1  # type: ignore[method-assign]
    return model, table


def train_critic(model: GAN, table: Table, steps: int = 400, lr: float = 0.5) -> float:
    (critic, _) = model.objectives()
    optimizer = torch.optim.SGD(critic.parameters, lr=lr)
    for step in range(steps):
        optimizer.zero_grad()
        loss = critic.loss(Batch(REALS[:, None].to(torch.uint8)), generator=seeded(step))["loss"].mean()
        loss.backward()
        optimizer.step()
        if critic.after is not None:
            critic.after()
    return float(loss.detach())


# --- the optimal critic -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["minimax", "non-saturating"])
def test_the_optimal_critic_is_p_over_p_plus_q_and_its_loss_the_jensen_shannon_divergence(loss):
    model, table = free_critic(loss=loss)
    found = train_critic(model, table, steps=500, lr=4.0)
    torch.testing.assert_close(table.logits.detach().sigmoid(), (P / (P + Q)).double(), atol=1e-4, rtol=0)
    mixture = (P + Q) / 2
    divergence = float((P * (P / mixture).log() + Q * (Q / mixture).log()).sum()) / 2
    assert found == pytest.approx(2 * math.log(2) - 2 * divergence, abs=1e-6)


def test_where_fakes_are_distributed_as_data_the_optimal_critic_has_loss_2_ln_2():
    model, table = free_critic(fakes=REALS)
    with torch.no_grad():
        table.logits.copy_(torch.tensor([1.0, -2.0, 0.5, 0.3]))
    assert train_critic(model, table, steps=500, lr=4.0) == pytest.approx(2 * math.log(2), abs=1e-6)


def test_the_optimal_critics_of_least_squares_hinge_and_clipped_wgan():
    model, table = free_critic(loss="least-squares")
    train_critic(model, table)
    torch.testing.assert_close(table.logits.detach(), (P / (P + Q)).double(), atol=1e-4, rtol=0)
    model, table = free_critic(loss="hinge")
    train_critic(model, table, lr=0.05)
    torch.testing.assert_close(table.logits.detach(), (P - Q).sign().double(), atol=0.05, rtol=0)
    model, table = free_critic(loss="wgan", weight_clip=0.3)
    train_critic(model, table)
    assert torch.equal(table.logits.detach(), 0.3 * (P - Q).sign().double())


def test_smoothing_moves_the_target_of_data_alone():
    s = 0.2
    model, table = free_critic(smoothing=s)
    train_critic(model, table, steps=500, lr=4.0)
    # (1 − s) p softplus(−v) + (s p + q) softplus(v): fakes keep the target 0
    torch.testing.assert_close(table.logits.detach().sigmoid(), ((1 - s) * P / (P + Q)).double(), atol=1e-4, rtol=0)
    model, table = free_critic(loss="least-squares", smoothing=s)
    train_critic(model, table)
    torch.testing.assert_close(table.logits.detach(), ((1 - s) * P / (P + Q)).double(), atol=1e-4, rtol=0)


# --- the generator's side ---------------------------------------------------------------------------------------------


def pair(seed: int = 0, **options) -> GAN:
    model = create("gan", Event((2,), REAL), preset="tiny", seed=seed, **options).double()
    model.prepare(Batch(torch.randn(50, 2, generator=seeded()) * 3 + 1), generator=seeded())
    return model


def generator_gradient(model: GAN, seed: int) -> tuple[Tensor, float]:
    terms = model.generator_loss(Batch(torch.zeros(1, 2)), generator=seeded(seed))
    parameters = tuple(model.generator.parameters())
    return torch.cat([g.flatten() for g in torch.autograd.grad(terms["loss"], parameters)]), terms["fake"].item()


def test_the_non_saturating_gradient_is_the_minimax_one_times_a_positive_factor_for_each_sample():
    minimax, other = pair(loss="minimax"), pair(loss="non-saturating")
    for seed in range(5):
        (a, logit), (b, same) = generator_gradient(minimax, seed), generator_gradient(other, seed)
        assert logit == same
        torch.testing.assert_close(b, math.exp(-logit) * a)  # σ(−v) / σ(v)
        assert a.abs().max() > 0


def test_both_players_minimise_the_papers_losses():
    """Against a loop over examples, with the logits of the model's own critic."""
    x = torch.randn(6, 2, generator=seeded(1)).double()

    def softplus(v: float) -> float:
        return math.log1p(math.exp(v))

    real_loss = {
        "minimax": lambda v: softplus(-v),
        "least-squares": lambda v: (v - 1) ** 2 / 2,
        "hinge": lambda v: max(0.0, 1 - v),
        "wgan": lambda v: -v,
    }
    fake_loss = {
        "minimax": softplus,
        "least-squares": lambda v: v**2 / 2,
        "hinge": lambda v: max(0.0, 1 + v),
        "wgan": lambda v: v,
    }
    makers_loss = {
        "minimax": lambda v: -softplus(v),
        "least-squares": lambda v: (v - 1) ** 2 / 2,
        "hinge": lambda v: -v,
        "wgan": lambda v: -v,
    }
    for loss in real_loss:
        model = pair(loss=loss)
        with torch.no_grad():
            real = model.critic(model.scaled(x)).tolist()
            fake = model.critic(model.fakes(6, generator=seeded(3))).tolist()
        terms = model.critic_loss(Batch(x), generator=seeded(3))
        expected = [real_loss[loss](r) + fake_loss[loss](f) for r, f in zip(real, fake, strict=True)]
        assert terms["loss"].tolist() == pytest.approx(expected, rel=1e-9), loss
        assert terms["real"].tolist() == pytest.approx(real)
        assert terms["fake"].tolist() == pytest.approx(fake)
        made = model.generator_loss(Batch(x), generator=seeded(3))["loss"]
        assert made.tolist() == pytest.approx(list(map(makers_loss[loss], fake)), rel=1e-9), loss


def test_batch_statistics_of_data_and_fakes_are_kept_apart():
    model = pair(critic_norm="batch").train()
    x = torch.randn(8, 2, generator=seeded(1)).double() * 5
    terms = model.critic_loss(Batch(x), generator=seeded(2))
    with torch.no_grad():
        alone = model.critic(model.scaled(x))
        together = model.critic(torch.cat([model.scaled(x), model.fakes(8, generator=seeded(2))]))[:8]
    torch.testing.assert_close(terms["real"], alone)
    assert bool(((terms["real"] - together).abs() > 1e-3).all())


# --- penalties, clipping, packing -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "weight"),
    [({"loss": "wgan-gp"}, 10.0), ({"loss": "wgan-gp", "penalty": 3.0}, 3.0), ({"r1": 0.7}, 0.35)],
)
@pytest.mark.parametrize("packing", [1, 2])
def test_a_linear_critics_penalty_is_in_its_loss_once_with_its_weight(options, weight, packing):
    model = pair(packing=packing, **options)
    w = torch.randn(1, 2 * packing, generator=seeded(7)).double()
    model.critic = nn.Sequential(nn.Linear(2 * packing, 1, bias=False), nn.Flatten(0)).double()
    model.critic[0].weight = nn.Parameter(w.clone())
    norm = float(w.norm())
    penalty, slope = ((norm - 1) ** 2, 2 * (norm - 1) / norm) if "loss" in options else (norm**2, 2.0)
    x = torch.randn(8, 2, generator=seeded(8)).double()
    terms = model.critic_loss(Batch(x), generator=seeded(9))
    assert terms["loss"].shape == ((8,) if packing == 1 else ())
    assert terms["penalty"].flatten().tolist() == pytest.approx([penalty] * terms["penalty"].numel(), rel=1e-6)
    bare = pair(packing=packing, loss="wgan" if "loss" in options else "non-saturating")
    bare.critic = model.critic
    without = bare.critic_loss(Batch(x), generator=seeded(9))["loss"]
    more = (terms["loss"] - without).mean()
    assert more.item() == pytest.approx(weight * penalty, rel=1e-6)
    (gradient,) = torch.autograd.grad(more, model.critic[0].weight)
    torch.testing.assert_close(gradient, weight * slope * w, rtol=1e-5, atol=1e-8)


def test_packing_joins_examples_along_features_or_channels():
    model = pair(packing=3)
    x = torch.arange(16.0).view(8, 2)
    expected = torch.stack([torch.cat([x[3 * i], x[3 * i + 1], x[3 * i + 2]]) for i in range(2)])  # the last two go
    assert torch.equal(model.packed(x), expected)
    image = create("gan", Event((2, 8, 8), REAL), preset="tiny", packing=2)
    x = torch.randn(4, 2, 8, 8)
    assert torch.equal(image.packed(x), torch.stack([torch.cat([x[0], x[1]]), torch.cat([x[2], x[3]])]))
    with pytest.raises(InputError, match="packing=3 needs batches of at least 3"):
        model.packed(torch.zeros(2, 2))


def plane(n: int = 64) -> Data:
    x = torch.randn(n, 2, generator=seeded(5)) + torch.tensor([3.0, -1.0])
    return Data(name=None, event=Event((2,), REAL), train=Split(x), validation=Split(x[:8]), test=Split(x[:8]))


def largest_weight(net: nn.Module) -> float:
    return max(p.detach().abs().max().item() for p in net.parameters())


def test_weights_are_clipped_after_each_of_the_critics_updates(monkeypatch):
    seen = []

    def clip(self: GAN) -> None:
        before = largest_weight(self.critic)
        original(self)
        seen.append((before, largest_weight(self.critic)))

    original = GAN.clip_weights
    monkeypatch.setattr(GAN, "clip_weights", clip)
    data = plane()
    model = create("gan", data.event, preset="tiny", loss="wgan", critic_steps=3, weight_clip=0.05)
    unsup.fit(model, data, steps=4, lr=0.01, batch_size=16, progress="off")
    assert len(seen) == 4 * 3
    assert all(before > 0.051 for before, _ in seen)  # each update leads out of the bound again
    assert all(after <= 0.05 + 1e-8 for _, after in seen)
    assert largest_weight(model.generator) > 0.05


# --- training ---------------------------------------------------------------------------------------------------------


def test_the_average_over_steps_is_of_the_generator_alone(monkeypatch):
    path = []
    monkeypatch.setattr(
        GAN, "after_step", lambda self, time: path.append({k: v.clone() for k, v in self.state_dict().items()})
    )
    data = plane()
    model = create("gan", data.event, preset="tiny")
    average = {k: v.clone() for k, v in model.state_dict().items()}
    unsup.fit(model, data, steps=9, ema=0.5, lr=0.05, batch_size=16, progress="off")
    for t, state in enumerate(path, start=1):
        decay = min(0.5, (1 + t) / (10 + t))
        average = {k: decay * v + (1 - decay) * state[k] for k, v in average.items()}
    for name, value in model.state_dict().items():
        if name.startswith("generator."):
            torch.testing.assert_close(value, average[name], rtol=1e-5, atol=1e-6)
            assert not torch.equal(value, path[-1][name])
        elif name.startswith("critic."):
            assert torch.equal(value, path[-1][name])


@pytest.mark.parametrize("options", [{"loss": "hinge", "critic_norm": "spectral", "critic_steps": 2}, {"loss": "wgan"}])
def test_a_run_that_is_stopped_and_resumed_ends_as_one_that_was_not(tmp_path, monkeypatch, options):
    data = plane()
    how = {"steps": 12, "ema": 0.9, "batch_size": 16, "progress": "off", "seed": 3}

    def fresh() -> GAN:
        return create("gan", data.event, preset="tiny", seed=3, **options)

    whole = fresh()
    unsup.fit(whole, data, **how)
    with monkeypatch.context() as patch:
        patch.setattr(
            GAN, "after_step", lambda self, time: os.kill(os.getpid(), signal.SIGINT) if time.step == 5 else None
        )
        assert unsup.fit(fresh(), data, out=tmp_path / "r", **how).steps == 5
    resumed = fresh()
    unsup.fit(resumed, data, out=tmp_path / "r", resume=True, **how)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_binary_data_is_learnt_up_to_its_frequencies():
    share = torch.tensor([0.1, 0.45, 0.3, 0.15])
    code = torch.multinomial(share, 2000, replacement=True, generator=seeded())
    x = torch.stack([code // 2, code % 2], 1).to(torch.uint8)
    data = Data(name=None, event=Event((2,), BINARY), train=Split(x), validation=Split(x[:8]), test=Split(x[:8]))
    model = create("gan", data.event, latent_dim=4, hidden=(48, 48), r1=0.1)
    unsup.fit(model, data, steps=400, batch_size=128, lr=2e-3, betas=(0.0, 0.99), ema=0.98, progress="off")
    drawn = model.sample(4000, generator=seeded(1)).long()
    found = (2 * drawn[:, 0] + drawn[:, 1]).bincount(minlength=4) / 4000
    expected = code.bincount(minlength=4) / 2000
    assert float((found - expected).abs().sum()) / 2 < 0.08  # total variation; equal shares are 0.25 away


# --- conditions -------------------------------------------------------------------------------------------------------

CENTRES = torch.tensor([[2.0, 0.0], [-1.0, 1.7], [-1.0, -1.7]])


def conditioned(x: Tensor, given: Tensor, condition: Event, event: Event) -> Data:
    split = Split(x, given=given)
    aside = split.take(slice(0, 8))
    return Data(name=None, event=event, train=split, validation=aside, test=aside, given=condition)


@pytest.mark.parametrize("options", [{"r1": 0.1}, {"loss": "hinge", "critic_norm": "spectral", "packing": 2}])
def test_a_generator_that_is_told_the_class_gives_samples_of_it(options):
    y = torch.multinomial(torch.tensor([0.5, 0.3, 0.2]), 3000, replacement=True, generator=seeded())
    x = CENTRES[y] + 0.1 * torch.randn(3000, 2, generator=seeded(1))
    data = conditioned(x, y, labels(3), Event((2,), REAL))
    model = create("gan", data.event, latent_dim=4, hidden=(32, 32), given=data.given, critic_steps=1, **options)
    unsup.fit(model, data, steps=300, batch_size=128, lr=2e-3, betas=(0.0, 0.99), ema=0.98, progress="off")
    wanted = torch.arange(3).repeat_interleave(200)
    drawn = model.sample(600, given=wanted, generator=seeded(2))
    nearest = torch.cdist(drawn, CENTRES).argmin(1)
    assert float((nearest == wanted).double().mean()) > 0.98
    for k in range(3):
        assert float((drawn[wanted == k].mean(0) - CENTRES[k]).norm()) < 0.5
    free = torch.cdist(model.sample(4000, generator=seeded(3)), CENTRES).argmin(1)
    share = free.bincount(minlength=3) / 4000
    assert bool(((share - (y.bincount(minlength=3) / 3000)).abs() < 0.04).all())


IMAGES = Event((1, 8, 8), BINARY)
CONDITIONS = {
    "class": (labels(3), torch.tensor([0, 2, 1, 0, 2, 1])),
    "numbers": (Event((2,), REAL), torch.randn(6, 2, generator=seeded(4))),
    "image": (IMAGES, torch.randint(0, 2, (6, 1, 8, 8), generator=seeded(5))),
}


@pytest.mark.parametrize("packing", [1, 2])
@pytest.mark.parametrize("kind", CONDITIONS)
@pytest.mark.parametrize("net", ["mlp", "dcgan", "resnet"])
def test_both_players_see_the_condition(net, kind, packing):
    given, c = CONDITIONS[kind]
    model = create("gan", IMAGES, preset="tiny", net=net, given=given, packing=packing, r1=0.5).double().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=seeded(p.numel()), dtype=p.dtype))
    x = torch.randint(0, 2, (6, 1, 8, 8), generator=seeded(6))
    batch, moved = Batch(x, given=c), Batch(x, given=c.roll(1, 0))

    for loss, player in ((model.critic_loss, model.critic), (model.generator_loss, model.generator)):
        model.zero_grad()
        terms = loss(batch, generator=seeded(7))
        terms["loss"].mean().backward()
        first = next(p for p in player.parameters() if p.ndim > 1)  # (outputs, inputs, …), the condition's last
        told = model.conditions.size if player is model.generator else packing * model.conditions.channels
        slopes = first.grad[:, -told:].transpose(0, 1).flatten(1).abs().amax(1)
        # pixels of the conditions at hand that are all alike may have none
        assert int((slopes > 0).sum()) >= (told if kind != "image" else 0.8 * told)
        assert not torch.allclose(loss(moved, generator=seeded(7))["fake"], terms["fake"])

    # The critic judges a pair: with data and fakes held, another condition is another logit.
    features, other = model.conditions(c), model.conditions(c.roll(1, 0))
    packs = model.packed(model.scaled(x, generator=seeded(8)))
    one, two = (model.judge(packs, model._beside(f)) for f in (features, other))
    assert bool((one != two).all())
    # The penalty's slope is by the example alone: a critic that sees only the condition has none.
    blind = model.critic
    model.critic = nn.Sequential(nn.Flatten(), Last(packing * 64))
    assert float(model.critic_loss(batch, generator=seeded(7))["penalty"].max()) == 0
    model.critic = blind


class Last(nn.Module):
    """A logit from what comes after the first ``skipped`` features."""

    def __init__(self, skipped: int) -> None:
        super().__init__()
        self.skipped = skipped
        self.weight = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x[:, self.skipped :].sum(1) + 0 * x.sum(1)


def test_packs_hold_the_conditions_of_their_examples():
    model = create("gan", Event((2,), REAL), preset="tiny", given=labels(3), packing=2)
    c = torch.tensor([0, 2, 1, 1])
    hot = torch.nn.functional.one_hot(c, 3).float()
    assert torch.equal(model._beside(model.conditions(c)), torch.cat([hot[::2], hot[1::2]], 1))


def test_calling_the_model_is_its_generator_in_units_of_the_data():
    event = Event((2,), (REAL, Support("ordinal", 5, low=3)))
    model = create("gan", event, preset="tiny", given=labels(3)).double()
    x = torch.stack([torch.randn(50, generator=seeded()) * 7 + 100, torch.randint(3, 8, (50,), generator=seeded(1))], 1)
    model.prepare(Batch(x.double(), given=torch.arange(50) % 3), generator=seeded())
    torch.testing.assert_close(model.log_prior.exp(), torch.tensor([18, 18, 17]).double() / 53)
    y = torch.tensor([0, 1, 2, 2])
    z = torch.randn(4, model.latent_dim, generator=seeded(5), dtype=torch.float64, requires_grad=True)
    raw = model(z, given=y)
    assert torch.equal(model.front.to_support(raw), model.sample(4, given=y, generator=seeded(5)))
    assert torch.autograd.grad(raw.sum(), z)[0].abs().min() > 0
    with pytest.raises(InputError, match="given="):
        model(z)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("net", ["mlp", "dcgan", "resnet"])
def test_samples_of_a_model_in_half_precision_are_near_those_in_float32(net, dtype):
    event = Event((1, 8, 8), Support("ordinal", 256, low=1_700_000_000))
    model = create("gan", event, preset="tiny", net=net, given=labels(3)).eval()
    z, y = torch.randn(50, model.latent_dim, generator=seeded()), torch.arange(50) % 3
    with torch.no_grad():
        whole = model(z, given=y)
        half = model.to(dtype)(z.to(dtype), given=y)
    assert float((half - whole).abs().mean()) < 256 * 0.02
    assert bool(event.contains(model.sample(50, given=y)).all())


# --- data -------------------------------------------------------------------------------------------------------------


def test_the_critic_sees_standardised_reals_and_levels_with_the_noise_of_one_level():
    event = Event((3,), (REAL, Support("ordinal", 5, low=-2), BINARY))
    model = create("gan", event, preset="tiny").double()
    n = 4000
    x = torch.stack(
        [
            torch.randn(n, generator=seeded()) * 7 + 100,
            torch.randint(-2, 3, (n,), generator=seeded(1)),
            torch.randint(0, 2, (n,), generator=seeded(2)),
        ],
        1,
    ).double()
    model.prepare(Batch(x), generator=seeded())
    y = model.scaled(x, generator=seeded(4))
    assert float(y[:, 0].mean()) == pytest.approx(0, abs=1e-5)
    assert float(y[:, 0].std(correction=0)) == pytest.approx(1, abs=1e-5)
    low, high = 2 * (x[:, 1] + 2) / 5 - 1, 2 * (x[:, 1] + 3) / 5 - 1
    assert bool(((y[:, 1] >= low) & (y[:, 1] < high)).all())
    assert float((y[:, 1] - low).mean()) == pytest.approx(0.2, abs=0.01)  # half a level's 0.4
    assert torch.equal(y[:, 2] >= 0, x[:, 2] == 1)
    assert float(y[:, 1:].abs().max()) <= 1
    with torch.no_grad():
        model.generator[-1].weight.mul_(100)
        fakes = model.fakes(500, generator=seeded(5)).abs().amax(0)
    assert fakes[0] > 2  # real entries are free, the others stay within their levels
    assert fakes[1] <= 1
    assert fakes[2] <= 1
    back = model.front.to_support(model.front.invert(y))
    torch.testing.assert_close(back.double(), x, rtol=1e-6, atol=1e-4)


def test_real_images_are_scaled_by_the_range_of_each_channel():
    model = create("gan", Event((2, 8, 8), REAL), preset="tiny", net="dcgan")
    x = torch.rand(20, 2, 8, 8, generator=seeded()) * torch.tensor([3.0, 50.0]).view(2, 1, 1) - 7
    model.prepare(Batch(x), generator=seeded())
    y = model.scaled(x)
    torch.testing.assert_close(y.amin((0, 2, 3)), -torch.ones(2))
    torch.testing.assert_close(y.amax((0, 2, 3)), torch.ones(2))
    torch.testing.assert_close(model.front.invert(y), x)


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"loss": "wgan-gp", "critic_norm": "batch"}, "which batch statistics mix"),
        ({"r1": 1.0, "critic_norm": "batch"}, "which batch statistics mix"),
        ({"loss": "wgan-gp", "penalty": 0.0}, "penalty=0.0 should be above 0"),
        ({"loss": "hinge", "penalty": 10.0}, "it is the λ of 'wgan-gp'"),
        ({"loss": "wgan-gp", "weight_clip": 0.01}, "'wgan' keeps the critic Lipschitz"),
        ({"loss": "wgan", "weight_clip": 0.0}, "weight_clip=0.0 should be above 0"),
        ({"loss": "wgan", "critic_norm": "spectral"}, "divided by their norm"),
        ({"loss": "wgan", "r1": 1.0}, "already has a constraint"),
        ({"loss": "wgan-gp", "r1": 1.0}, "already has a constraint"),
        ({"r1": -1.0}, "r1=-1.0 should be at least 0"),
        ({"loss": "hinge", "smoothing": 0.1}, "have targets to smooth"),
        ({"loss": "wgan", "smoothing": 0.1}, "have targets to smooth"),
        ({"smoothing": 0.5}, "from 0 to below 0.5"),
        ({"packing": 0}, "packing=0 should be at least 1"),
        ({"critic_steps": 0}, "critic_steps=0 should be at least 1"),
        ({"net": "resnet"}, "takes images only"),
    ],
)
def test_options_that_contradict_each_other_are_refused_with_the_reason(options, reason):
    with pytest.raises(InputError, match=reason):
        GAN(Event((2,), REAL), **options)


def test_nominal_data_is_refused():
    with pytest.raises(InputError, match="takes no categories"):
        GAN(Event((2,), Support("nominal", 3)))


def test_the_papers_settings_come_with_the_loss():
    vector, image = Event((2,), REAL), Event((3, 32, 32), Support("ordinal", 256))
    wgan = GAN(vector, loss="wgan")
    assert (wgan.critic_steps, wgan.weight_clip) == (5, 0.01)
    assert (wgan.fit_defaults["optimizer"], wgan.fit_defaults["lr"]) == ("rmsprop", 5e-5)
    wgan_gp = GAN(vector, loss="wgan-gp")
    assert (wgan_gp.critic_steps, wgan_gp.penalty) == (5, 10.0)
    assert (wgan_gp.fit_defaults["lr"], wgan_gp.fit_defaults["betas"]) == (1e-4, (0.0, 0.9))
    dcgan = GAN(image, generator_channels=8, critic_channels=8)
    assert (dcgan.net, dcgan.critic_norm, dcgan.critic_steps) == ("dcgan", "batch", 1)
    assert (dcgan.fit_defaults["lr"], dcgan.fit_defaults["betas"]) == (2e-4, (0.5, 0.999))
    assert GAN(image, generator_channels=8, critic_channels=8, r1=1.0).critic_norm == "none"


def test_the_paper_preset_is_sngans_residual_pair_counted_by_hand():
    model = create("gan", Event((3, 32, 32), Support("ordinal", 256)), preset="paper")
    assert (model.critic_norm, model.critic_steps, model.fit_defaults["betas"]) == ("spectral", 5, (0.0, 0.9))

    def conv(n: int, m: int, side: int) -> int:
        return n * m * side**2 + m

    up = 2 * conv(256, 256, 3) + conv(256, 256, 1) + 2 * 2 * 256
    generator = 128 * 4096 + 4096 + 3 * up + 2 * 256 + conv(256, 3, 3)
    first = conv(3, 128, 3) + conv(128, 128, 3) + conv(3, 128, 1)
    down, flat = 2 * conv(128, 128, 3) + conv(128, 128, 1), 2 * conv(128, 128, 3)
    assert sum(p.numel() for p in model.generator.parameters()) == generator == 4_276_739
    assert sum(p.numel() for p in model.critic.parameters()) == first + down + 2 * flat + 129


# --- diagnosis --------------------------------------------------------------------------------------------------------


def terms(real: float, fake: float, loss: float) -> dict[str, float]:
    return {"critic/real": real, "critic/fake": fake, "generator/loss": loss}


def test_a_critic_that_has_won_is_seen_and_the_advice_is_not_what_is_already_done():
    event = Event((2,), REAL)
    plain = GAN(event)
    assert plain.diagnose(terms(0.3, -0.4, 0.9)) is None
    won = plain.diagnose(terms(8.5, -7.25, 7.3))
    assert won.name == "saturated critic"
    assert "8.50 (real) and -7.25 (fake)" in won.advice
    assert "r1=" in won.advice
    assert "spectral" in won.advice
    held = GAN(event, loss="hinge", critic_norm="spectral", r1=2.0).diagnose(terms(1.5, -1.4, 1.4))
    assert "r1 above 2" in held.advice
    assert "critic_steps below 5" in held.advice
    assert "critic_norm" not in held.advice
    assert GAN(event, loss="wgan-gp").diagnose(terms(40.0, -30.0, 30.0)) is None  # its logits have no scale
    assert GAN(event, loss="wgan").diagnose(terms(3e4, -2e4, 2e4)).name == "explosion"
