"""CycleGAN against hand-written loops, a linear toy whose inverse is known, and the statistics of its history."""

from __future__ import annotations

import os
import signal
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from unsup import Batch, Event, InputError, Support, create, fit, load_data
from unsup.core.storage import load_tensors
from unsup.families.adversarial import cyclegan as module
from unsup.families.adversarial.cyclegan import CycleGAN, History, InstanceNorm, patch_critic, patch_side
from unsup.train.runs import Run

PIXELS = Event((3, 8, 8), Support("ordinal", 256))
TINY = {"widths": (4, 6), "blocks": 1, "critic_widths": (4, 6)}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pixels(n: int, seed: int, event: Event = PIXELS) -> Tensor:
    return torch.randint(0, 256, (n, *event.shape), generator=seeded(seed), dtype=torch.uint8)


def generic(**options: object) -> CycleGAN:
    """A small model in float64 with weights of a size at which no unit is asleep."""
    torch.manual_seed(0)
    model = CycleGAN(PIXELS, **(TINY | options)).double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(0.3 * torch.randn(p.shape, generator=seeded(p.numel()), dtype=p.dtype))
    return model


def scaled(x: Tensor) -> Tensor:
    return x.double() / 127.5 - 1


def gradients(model: CycleGAN, loss: Tensor) -> dict[str, Tensor]:
    found = torch.autograd.grad(loss.mean(), list(model.parameters()), allow_unused=True)
    pairs = zip(model.named_parameters(), found, strict=True)
    return {name: torch.zeros_like(p) if g is None else g for (name, p), g in pairs}


def players(found: dict[str, Tensor], smallest: float = 1e-12) -> set[str]:
    """The nets that a gradient reaches."""
    return {name.partition(".")[0] for name, g in found.items() if float(g.abs().max()) > smallest}


# --- losses -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "m"), [(1, 1), (3, 3), (3, 2)])
def test_both_losses_are_those_of_a_loop_over_examples(n: int, m: int) -> None:
    model = generic(cycle=7.0, identity=0.3)
    batch = Batch(pixels(n, 1), streams={"domain_b": Batch(pixels(m, 2))})
    g, f, judge_a, judge_b = model.to_b, model.to_a, model.critic_a, model.critic_b
    a, b = (list(scaled(x).split(1)) for x in (batch.x, batch["domain_b"].x))

    def mean(values: list[Tensor]) -> Tensor:
        """Of each example where the domains are alike, else of all."""
        each = torch.stack([v.mean() for v in values])
        return each if n == m else each.mean()

    expected = {
        "adversarial_a": mean([(judge_a(f(y)) - 1) ** 2 for y in b]),
        "adversarial_b": mean([(judge_b(g(x)) - 1) ** 2 for x in a]),
        "cycle_a": mean([(f(g(x)) - x).abs() for x in a]),
        "cycle_b": mean([(g(f(y)) - y).abs() for y in b]),
        "identity_a": mean([(f(x) - x).abs() for x in a]),
        "identity_b": mean([(g(y) - y).abs() for y in b]),
    }
    total = (
        expected["adversarial_a"]
        + expected["adversarial_b"]
        + 7 * (expected["cycle_a"] + expected["cycle_b"])
        + 7 * 0.3 * (expected["identity_a"] + expected["identity_b"])
    )
    terms = model.translators_loss(batch)
    torch.testing.assert_close({k: terms[k] for k in expected}, expected)
    torch.testing.assert_close(terms["loss"], total)
    torch.testing.assert_close(gradients(model, terms["loss"]), gradients(model, total))

    halves = {
        "critic_a": 0.5 * (mean([(judge_a(x) - 1) ** 2 for x in a]) + mean([judge_a(f(y)) ** 2 for y in b])),
        "critic_b": 0.5 * (mean([(judge_b(y) - 1) ** 2 for y in b]) + mean([judge_b(g(x)) ** 2 for x in a])),
    }
    terms = model.eval().critics_loss(batch)
    torch.testing.assert_close({k: terms[k] for k in halves}, halves)
    torch.testing.assert_close(terms["loss"], halves["critic_a"] + halves["critic_b"])
    both = model.loss(batch)
    torch.testing.assert_close(both["loss"], total + terms["loss"])
    assert {*expected, *halves, "loss"} == set(both)


def test_each_term_moves_the_nets_it_should_and_no_other() -> None:
    model = generic(cycle=0.0)  # no cycle, and identity is a share of it
    batch = Batch(pixels(2, 1), streams={"domain_b": Batch(pixels(2, 2))})
    # A critic whose scores are constant passes no slope on, so that the other's remains.
    for silent, reached in (("a", "to_b"), ("b", "to_a")):
        muted = generic(cycle=0.0)
        getattr(muted, f"critic_{silent}")[-1].weight.data.zero_()
        found = gradients(muted, muted.translators_loss(batch)["loss"])
        assert players(found) - {"critic_a", "critic_b"} == {reached}
    adversarial = gradients(model, model.translators_loss(batch)["loss"])
    for options in ({"cycle": 10.0, "identity": 0.0}, {"cycle": 10.0, "identity": 3.0}):
        other = generic(**options)
        found = gradients(other, other.translators_loss(batch)["loss"])
        extra = {name: g - adversarial[name] for name, g in found.items()}
        assert players(extra, 1e-9) == {"to_a", "to_b"}
    assert players(gradients(model, model.critics_loss(batch, generator=seeded())["loss"])) == {"critic_a", "critic_b"}


def test_identity_reaches_each_translator_through_its_own_domain() -> None:
    """The slope that the identity weight adds to G is that of ½λ E‖G(b) − b‖₁, which does not know a."""
    batch = Batch(pixels(2, 1), streams={"domain_b": Batch(pixels(3, 2))})
    with_it, without = generic(cycle=10.0, identity=0.5), generic(cycle=10.0, identity=0.0)
    extra = gradients(with_it, with_it.translators_loss(batch)["loss"])
    rest = gradients(without, without.translators_loss(batch)["loss"])
    b = scaled(batch["domain_b"].x)
    expected = gradients(with_it, 5 * (with_it.to_b(b) - b).abs().mean())
    for name in (n for n in extra if n.startswith("to_b")):
        torch.testing.assert_close(extra[name] - rest[name], expected[name], rtol=1e-7, atol=1e-9)


def test_at_the_true_linear_map_the_cycle_loss_is_zero_and_the_identity_loss_is_the_distance_of_the_domains() -> None:
    model = generic()
    mix = torch.tensor([[0.6, 0.3, 0.0], [-0.2, 0.7, 0.1], [0.0, 0.2, 0.5]], dtype=torch.float64)
    shift = torch.tensor([0.1, -0.05, 0.02], dtype=torch.float64)
    inverse = torch.linalg.inv(mix)
    model.to_b, model.to_a = linear(mix, shift), linear(inverse, -inverse @ shift)
    batch = Batch(pixels(4, 1), streams={"domain_b": Batch(pixels(4, 2))})
    terms = model.translators_loss(batch)
    assert float(terms["cycle_a"].max()) < 1e-14
    assert float(terms["cycle_b"].max()) < 1e-14
    b = scaled(batch["domain_b"].x).numpy()
    away = np.einsum("ij,njhw->nihw", mix.numpy(), b) + shift.numpy()[:, None, None] - b
    assert terms["identity_b"].tolist() == pytest.approx(np.abs(away).mean((1, 2, 3)), rel=1e-12)
    adversarial = terms["adversarial_a"] + terms["adversarial_b"]
    identity = terms["identity_a"] + terms["identity_b"]
    torch.testing.assert_close(terms["loss"].detach(), adversarial + 10 * 0.5 * identity)
    # Any other way back is worse: the cycle loss is the mean of |(F M − I) x|.
    model.to_a = linear(inverse + 0.01, -inverse @ shift)
    found = model.translators_loss(batch)["cycle_a"].tolist()
    there = np.einsum("ij,njhw->nihw", mix.numpy(), scaled(batch.x).numpy()) + shift.numpy()[:, None, None]
    assert found == pytest.approx(np.abs(0.01 * there.sum(1)).mean((1, 2)), rel=1e-9)


def linear(weight: Tensor, bias: Tensor) -> nn.Conv2d:
    layer = nn.Conv2d(3, 3, 1).double()
    with torch.no_grad():
        layer.weight.copy_(weight[:, :, None, None])
        layer.bias.copy_(bias)
    return layer


def test_every_parameter_is_moved_but_the_biases_that_a_norm_takes_away() -> None:
    """What the registry's exception to the law of gradients says, and nothing more."""
    model = generic()
    batch = Batch(pixels(4, 1), streams={"domain_b": Batch(pixels(4, 2))})
    dead = set()
    for name, net in model.named_children():
        layers = [
            (n, m) for n, m in net.named_modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d, InstanceNorm))
        ]
        dead |= {f"{name}.{n}.bias" for (n, _), (_, after) in pairwise(layers) if isinstance(after, InstanceNorm)}
    assert len(dead) == 2 * (2 + 2 * 1 + 1) + 2 * 1
    for objective in model.objectives():
        own = {id(p) for p in objective.parameters}
        found = gradients(model, objective.loss(batch, generator=seeded())["loss"])
        for name, p in model.named_parameters():
            if id(p) in own:
                assert (float(found[name].abs().max()) > 1e-12) == (name not in dead), name


# --- nets -------------------------------------------------------------------------------------------------------------


def test_the_paper_preset_is_the_papers_nets_and_start() -> None:
    with torch.random.fork_rng():
        model = create("cyclegan", Event((3, 256, 256), Support("ordinal", 256)), preset="paper")

    def conv(before: int, after: int, kernel: int) -> int:
        return before * after * kernel**2 + after

    ends = conv(3, 64, 7) + conv(64, 3, 7)
    stages = conv(64, 128, 3) + conv(128, 256, 3) + conv(256, 128, 3) + conv(128, 64, 3)
    counts = {name: sum(p.numel() for p in net.parameters()) for name, net in model.named_children()}
    assert counts["to_a"] == counts["to_b"] == ends + stages + 18 * conv(256, 256, 3) == 11_378_179
    critic = conv(3, 64, 4) + conv(64, 128, 4) + conv(128, 256, 4) + conv(256, 512, 4) + conv(512, 1, 4)
    assert counts["critic_a"] == counts["critic_b"] == critic == 2_764_737
    assert model.history_a.examples.shape == (50, 3, 256, 256)
    kinds = Counter(type(m).__name__ for m in model.to_a.modules())
    assert (kinds["ResidualBlock"], kinds["InstanceNorm"], kinds["Dropout"]) == (9, 23, 0)
    norms = [isinstance(m, InstanceNorm) for m in model.critic_a if not isinstance(m, nn.LeakyReLU)]
    assert norms == [False, False, True, False, True, False, True, False]  # none after the first layer
    for layer in (model.to_b[0], model.critic_b[8]):
        assert float(layer.weight.detach().std()) == pytest.approx(0.02, rel=0.03)
        assert not layer.bias.any()
    assert (model.cycle, model.identity) == (10.0, 0.5)
    settings = {"lr": 2e-4, "betas": (0.5, 0.999), "batch_size": 1, "schedule": "half-linear"}
    assert settings == CycleGAN.fit_defaults


@pytest.mark.parametrize(("side", "blocks", "layers"), [(8, 6, 1), (16, 6, 2), (32, 6, 2), (64, 6, 3), (128, 6, 4)])
def test_by_default_blocks_and_patches_fit_the_picture(side: int, blocks: int, layers: int) -> None:
    model = CycleGAN(Event((1, side, side), Support("ordinal", 256)), widths=(2, 2, 2), pool=0)
    assert sum(isinstance(m, module.ResidualBlock) for m in model.to_a.modules()) == blocks
    assert sum(isinstance(m, nn.Conv2d) for m in model.critic_a) == layers + 1


@pytest.mark.parametrize(("layers", "side"), [(1, 7), (2, 16), (3, 34), (4, 70)])
def test_one_score_sees_a_patch_of_the_stated_side(layers: int, side: int) -> None:
    """The pixels that have a slope on the middle score; the norms, which see the whole picture, are taken out."""
    assert patch_side(layers) == side
    torch.manual_seed(0)
    critic = patch_critic(1, (2,) * layers).double()
    for i, layer in enumerate(critic):
        if isinstance(layer, InstanceNorm):
            critic[i] = nn.Identity()
    x = torch.randn(1, 1, 160, 160, generator=seeded(), dtype=torch.float64, requires_grad=True)
    scores = critic(x)
    middle = scores.shape[-1] // 2
    scores[0, 0, middle, middle].backward()
    seen = x.grad[0, 0].abs() > 0
    for axis in (0, 1):
        where = seen.any(axis).nonzero().flatten()
        assert int(where[-1] - where[0]) + 1 == side
    assert int(seen.sum()) == side**2


def test_instance_norm_has_no_state_and_is_that_of_each_example_alone() -> None:
    norm = InstanceNorm()
    assert not list(norm.parameters())
    assert not list(norm.buffers())
    x = 3 + 2 * torch.randn(4, 5, 6, 7, generator=seeded(), dtype=torch.float64)
    for train in (True, False):
        torch.testing.assert_close(norm.train(train)(x), torch.nn.functional.instance_norm(x))
    assert torch.equal(norm(x)[:1], norm(x[:1]))
    assert not norm(torch.full((2, 3, 1, 1), 5.0)).any()


# --- history ----------------------------------------------------------------------------------------------------------


def numbers(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).view(-1, 1, 1, 1)


def test_the_history_fills_with_the_first_and_hands_them_back() -> None:
    history = History(5, (1, 1, 1)).double()
    for i in (0, 2):
        assert history.exchange(numbers(i, i + 1), generator=seeded(i)).flatten().tolist() == [i, i + 1]
    assert int(history.count) == 4
    assert float(history.exchange(numbers(4, 99), generator=seeded())[0]) == 4
    assert int(history.count) == 5
    held = sorted(history.examples.flatten().tolist())
    assert held[:4] == [0, 1, 2, 3] or 99 in held


def test_a_full_history_keeps_the_new_one_half_of_the_time_and_else_trades_it_for_any_stored_one() -> None:
    """n trades: keeps ~ Binomial(n, ½); the slot is uniform; a stored one leaves with probability 1/(2·size) a step."""
    size, n = 8, 6_000
    history = History(size, (1, 1, 1)).double()
    history.exchange(numbers(*range(size)), generator=seeded(1))
    generator = seeded(2)
    kept, slots, ages, born = 0, Counter(), [], dict.fromkeys(range(size), 0)
    for step in range(1, n + 1):
        before = history.examples.flatten().clone()
        shown = int(history.exchange(numbers(1000 + step), generator=generator))
        changed = (history.examples.flatten() != before).nonzero().flatten().tolist()
        if shown == 1000 + step:
            kept += 1
            assert not changed
        else:
            (slot,) = changed
            assert int(before[slot]) == shown
            assert int(history.examples[slot]) == 1000 + step
            slots[slot] += 1
            if shown >= 1000:
                ages.append(step - born[shown])
            born[1000 + step] = step
    assert stats.binomtest(kept, n, 0.5).pvalue > 1e-3
    assert stats.chisquare([slots[i] for i in range(size)]).pvalue > 1e-3
    ages = np.array(ages)
    assert abs(ages.mean() - 2 * size) < 4 * ages.std() / np.sqrt(len(ages))
    geometric = stats.geom(1 / (2 * size))
    edges = [0, 3, 8, 15, 25, 40, 10**9]
    seen = np.histogram(ages, np.array(edges) + 0.5)[0]
    expected = len(ages) * np.diff(geometric.cdf(edges))
    assert stats.chisquare(seen, expected * seen.sum() / expected.sum()).pvalue > 1e-3


def test_the_history_is_of_fixed_shape_holds_no_graph_and_can_be_left_out() -> None:
    history = History(3, (1, 1, 1)).double()
    shapes = {k: v.shape for k, v in history.state_dict().items()}
    assert set(shapes) == {"examples", "count"}
    new = numbers(1, 2, 3, 4, 5).requires_grad_()
    shown = history.exchange(2 * new, generator=seeded())
    assert not shown.requires_grad
    assert not history.examples.requires_grad
    assert {k: v.shape for k, v in history.state_dict().items()} == shapes
    assert torch.equal(History(0, (1, 1, 1)).exchange(new), new)


def test_only_critics_in_training_move_the_histories_and_they_see_what_these_give() -> None:
    model = generic(pool=2)
    batch = Batch(pixels(2, 1), streams={"domain_b": Batch(pixels(2, 2))})
    model.translators_loss(batch)
    model.eval().critics_loss(batch)
    assert not model.history_a.count
    model.train().critics_loss(batch, generator=seeded())
    assert int(model.history_a.count) == int(model.history_b.count) == 2
    torch.testing.assert_close(model.history_b.examples, model.to_b(scaled(batch.x)).detach())
    torch.testing.assert_close(model.history_a.examples, model.to_a(scaled(batch["domain_b"].x)).detach())
    for seed in range(8):  # with full histories some draws hand back what is stored
        stored = [h.examples.clone() for h in (model.history_a, model.history_b)]
        fresh = Batch(pixels(2, 10 + seed), streams={"domain_b": Batch(pixels(2, 20 + seed))})
        again = [History(2, PIXELS.shape).double() for _ in range(2)]
        for history, held in zip(again, stored, strict=True):
            history.examples.copy_(held)
            history.count.fill_(2)
        generator = seeded(seed)
        fakes = (model.to_a(scaled(fresh["domain_b"].x)), model.to_b(scaled(fresh.x)))
        shown = [h.exchange(f, generator=generator) for h, f in zip(again, fakes, strict=True)]
        terms = model.critics_loss(fresh, generator=seeded(seed))
        for name, fake, real in (("a", shown[0], fresh.x), ("b", shown[1], fresh["domain_b"].x)):
            critic = getattr(model, f"critic_{name}")
            errors = 0.5 * (critic(scaled(real)) - 1) ** 2 + 0.5 * critic(fake) ** 2
            expected = errors.mean((1, 2, 3))
            torch.testing.assert_close(terms[f"critic_{name}"], expected.detach())


def test_an_interrupted_run_goes_on_to_the_same_weights_and_histories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load_data("stripes", n=20)
    options = {"steps": 8, "batch_size": 2, "validate_every": 8, "progress": "off", "seed": 3}

    def model() -> CycleGAN:
        return create("cyclegan", data.event, seed=3, **TINY, pool=5)

    fit(model(), data, out=tmp_path / "whole", **options)
    calls = []
    original = CycleGAN.critics_loss

    def interrupted(self: CycleGAN, batch: Batch, **kwargs: object) -> dict[str, Tensor]:
        calls.append(batch)
        if len(calls) == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, batch, **kwargs)

    monkeypatch.setattr(CycleGAN, "critics_loss", interrupted)
    assert fit(model(), data, out=tmp_path / "parts", **options).interrupted
    monkeypatch.undo()
    fit(model(), data, out=tmp_path / "parts", resume=True, **options)
    one, other = (load_tensors(Run(tmp_path / name).checkpoint("last"))[0] for name in ("whole", "parts"))
    assert set(one) == set(other)
    assert all(torch.equal(one[k], other[k]) for k in one)
    assert int(one["model.history_a.count"]) == 5


# --- use --------------------------------------------------------------------------------------------------------------


def test_translation_is_the_net_in_raw_levels_and_each_picture_alone() -> None:
    event = Event((3, 8, 8), Support("ordinal", 5, low=-2))
    model = CycleGAN(event, **TINY).double().eval()
    x = torch.randint(-2, 3, (6, 3, 8, 8), generator=seeded())
    for to, net in (("a", model.to_a), ("b", model.to_b)):
        with torch.no_grad():
            net[-2].weight.normal_(generator=seeded(1))  # so that all levels are met
            expected = ((net(x.double() / 2) + 1) * 2).round() - 2
        found = model.translate(x, to=to)
        assert found.dtype == event.dtype
        assert torch.equal(found, expected.long())
        assert found.unique().tolist() == [-2, -1, 0, 1, 2]
        assert torch.equal(torch.cat([model.translate(one[None], to=to) for one in x]), found)


def test_pictures_are_translated_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model = generic().eval()
    x = pixels(5, 0)
    whole = model.translate(x, to="b")
    sizes = []
    model.to_b.register_forward_pre_hook(lambda net, inputs: sizes.append(len(inputs[0])))
    monkeypatch.setattr(module, "_PIXELS_AT_ONCE", 2 * 64)
    assert torch.equal(model.translate(x, to="b"), whole)
    assert sizes == [2, 2, 1]


def test_a_translator_that_leaves_pictures_alone_gives_back_every_level() -> None:
    model = generic()
    model.to_b = nn.Identity()
    x = torch.arange(192, dtype=torch.uint8).view(1, 3, 8, 8)
    for offset in (0, 64):
        assert torch.equal(model.translate(x + offset, to="b"), x + offset)


@pytest.mark.parametrize(
    ("terms", "name", "words"),
    [
        ({}, None, ()),
        ({"critics/critic_b": 0.004}, "saturation", ("domain b", "0.004", "critic_widths")),
        ({"translators/cycle_a": 0.8}, "lost content", ("domain a", "0.80", "cycle weight")),
    ],
)
def test_symptoms_say_what_is_seen(terms: dict[str, float], name: str | None, words: tuple[str, ...]) -> None:
    healthy = {f"critics/critic_{d}": 0.2 for d in "ab"} | {f"translators/cycle_{d}": 0.1 for d in "ab"}
    found = generic().diagnose(healthy | terms)
    assert (found.name if found else None) == name
    assert all(word in found.advice for word in words)


def test_the_terms_of_a_run_are_those_that_a_diagnosis_asks_for() -> None:
    data = load_data("stripes", n=10)
    fitted = fit(create("cyclegan", data.event, preset="tiny"), data, steps=2, progress="off")
    logged = next(e for e in fitted.events if "translators/loss" in e)
    assert generic().diagnose({k: v for k, v in logged.items() if "/" in k} | {"critics/critic_a": 0.0}) is not None


@pytest.mark.parametrize(
    ("event", "options", "words"),
    [
        (Event((4,), Support("binary")), {}, "takes images"),
        (Event((1, 8, 8), Support("real")), {}, "discrete levels"),
        (Event((1, 28, 30), Support("binary")), {}, "multiples of 4"),
        (PIXELS, {"widths": (4, 4, 4, 4)}, "1 to 3 widths"),
        (PIXELS, {"widths": ()}, "1 to 3 widths"),
        (PIXELS, {"critic_widths": (4, 4, 4)}, "1 to 2 widths"),
        (PIXELS, {"cycle": -1.0}, "cycle=-1.0 should be at least 0"),
        (PIXELS, {"pool": -1}, "pool=-1 should be at least 0"),
    ],
)
def test_what_cannot_be_built_is_refused_with_the_reason(event: Event, options: dict, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        CycleGAN(event, **options)
    assert "\n" not in str(caught.value)


def test_the_deepest_nets_that_the_errors_allow_work() -> None:
    model = CycleGAN(PIXELS, widths=(2, 2, 2), critic_widths=(2, 2), blocks=1).double()
    batch = Batch(pixels(2, 1), streams={"domain_b": Batch(pixels(2, 2))})
    assert bool(model.loss(batch, generator=seeded())["loss"].isfinite().all())
    assert model.translate(batch.x, to="a").shape == batch.x.shape


def test_one_domain_is_not_enough() -> None:
    data = load_data("digits")
    model = create("cyclegan", data.event, preset="tiny")
    with pytest.raises(InputError, match="stream 'domain_b', which digits does not have"):
        fit(model, data, steps=1, progress="off")
    with pytest.raises(InputError, match="no stream 'domain_b'"):
        model.loss(Batch(data.train.x[:2]))


def test_translate_refuses_other_shapes_and_domains() -> None:
    model = generic()
    with pytest.raises(InputError, match="shape"):
        model.translate(pixels(2, 0)[:, :1], to="b")
    with pytest.raises(InputError, match="expected 'a' or 'b'"):
        model.translate(pixels(2, 0), to="c")
