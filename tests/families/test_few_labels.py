"""Classifiers of few labels: what their losses are, what they move, and the adversarial direction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unsup
from unsup.core import registry
from unsup.core.batch import Batch, Time
from unsup.core.errors import InputError
from unsup.core.event import REAL, Event, Support
from unsup.core.model import Model, Terms
from unsup.families.semisup.entropy_minimisation import EntropyMinimisation
from unsup.families.semisup.fixmatch import FixMatch
from unsup.families.semisup.mean_teacher import MeanTeacher
from unsup.families.semisup.mixmatch import MixMatch
from unsup.families.semisup.pseudo_label import PseudoLabel
from unsup.families.semisup.supervised import Supervised
from unsup.families.semisup.uda import UDA
from unsup.families.semisup.vat import VAT
from unsup.nn.few_labels import FewLabels
from unsup.nn.norm import BatchNorm
from unsup.prob.consistency import divergence, scaled_to

DIGITS = Event((1, 6, 6), Support("ordinal", 17), "image")
PLANE = Event((2,), REAL)
TABLE = Event((3,), (REAL, Support("nominal", 3), Support("ordinal", 30)))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def examples(event: Event, n: int, seed: int = 0) -> Tensor:
    columns = [
        torch.randn(n, generator=seeded(seed + i), dtype=torch.float64)
        if not s.is_discrete
        else torch.randint(s.levels, (n,), generator=seeded(seed + i)).double()
        for i, s in enumerate(event.columns)
    ]
    return torch.stack(columns, 1).view(n, *event.shape).to(event.dtype)


def batch(event: Event, n: int = 8, each: int = 2, classes: int = 3, seed: int = 0) -> Batch:
    """Labelled and unlabelled examples in the middle of a run."""
    label = torch.arange(n) % classes
    streams = {"unlabelled": Batch(examples(event, each * n, seed + 50))}
    return Batch(examples(event, n, seed), label, streams=streams, time=Time(500, 1000))


def built(cls: Callable[..., FewLabels], event: Event = DIGITS, **options: Any) -> FewLabels:
    torch.manual_seed(0)
    model = cls(event, **({"classes": 3, "width": 0.02} | options)).double()
    model.prepare(batch(event, 60), generator=seeded())
    return model


@pytest.mark.parametrize("event", [DIGITS, PLANE, TABLE], ids=str)
@pytest.mark.parametrize("cls", [Supervised, VAT])
def test_labels_decide_the_cross_entropy_and_nothing_else_does(cls: Callable[..., FewLabels], event: Event) -> None:
    model, given = built(cls, event).eval(), batch(event)
    terms = model.loss(given, generator=seeded())
    assert given.label is not None
    expected = [-float(p[y].log()) for p, y in zip(model.predict_proba(given.x), given.label, strict=True)]
    assert torch.allclose(terms["cross_entropy"], torch.tensor(expected, dtype=torch.float64), rtol=1e-9)
    right = model.predict_proba(given.x).argmax(1) == given.label
    assert torch.equal(terms["accuracy"], right.double())
    if cls is Supervised:
        assert torch.equal(terms["loss"], terms["cross_entropy"])


def test_the_loss_is_the_weighted_sum_for_each_group() -> None:
    model, given = built(VAT, alpha=0.7, entropy=0.3, unlabelled=2), batch(DIGITS)
    terms = model.loss(given, generator=seeded())
    assert torch.allclose(terms["loss"], terms["cross_entropy"] + 0.7 * terms["vat"] + 0.3 * terms["entropy"])
    model.eval()  # without batch statistics, a group is alone
    whole = model.loss(given, generator=seeded(3))["entropy"]
    for i in range(8):
        p = model.predict_proba(given["unlabelled"].x[2 * i : 2 * i + 2])
        assert float(whole[i]) == pytest.approx(float(-(p * p.log()).sum(1).mean()))


# --- virtual adversarial training -------------------------------------------------------------------------------------


def with_net(net: nn.Module, features: int, event: Event, **options: Any) -> VAT:
    """A model whose backbone is another network."""
    torch.manual_seed(1)
    model = VAT(event, classes=4, width=0.02, **options)
    model.backbone = net  # type: ignore[assignment]
    model.head = nn.Linear(features, 4)
    return model.double()


def curvature(model: VAT, h: Tensor) -> Tensor:
    """The matrix of second derivatives of KL(p(y | h) ‖ p(y | h + r)) by r at 0, of one example."""
    target = model.logits(h).detach()
    found = torch.autograd.functional.hessian(
        lambda r: divergence(target, model.logits(h + r.view(h.shape))).sum(), torch.zeros(h.numel(), dtype=h.dtype)
    )
    assert isinstance(found, Tensor)
    return found


NETS: dict[str, Callable[[], tuple[nn.Module, int]]] = {
    "logistic regression": lambda: (nn.Flatten(), 6),
    "tanh": lambda: (nn.Sequential(nn.Flatten(), nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 5), nn.Tanh()), 5),
    "leaky": lambda: (nn.Sequential(nn.Flatten(), nn.Linear(6, 9), nn.LeakyReLU(0.1)), 9),
}


@pytest.mark.parametrize("name", NETS)
def test_the_direction_tends_to_the_dominant_eigenvector(name: str) -> None:
    torch.manual_seed(0)
    event = Event((6,), REAL)
    h = torch.randn(5, 6, 1, 1, generator=seeded(), dtype=torch.float64)
    start = torch.randn(h.shape, generator=seeded(1), dtype=torch.float64)
    net, features = NETS[name]()
    model = with_net(net, features, event, iterations=100).eval()
    logits, direction = model.direction(h, start)
    assert torch.allclose(logits, model.logits(h))
    once = with_net(net, features, event, iterations=1).eval()
    _, first = once.direction(h, start)
    for i in range(len(h)):
        matrix = curvature(model, h[i : i + 1])
        values, vectors = torch.linalg.eigh(matrix)
        assert float(values[-1]) > 1.01 * float(values[-2])
        assert abs(float(torch.cosine_similarity(direction[i].flatten(), vectors[:, -1], dim=0))) > 1 - 1e-6
        expected = curvature(once, h[i : i + 1]) @ scaled_to(start[i : i + 1], 1.0).flatten()
        assert torch.allclose(first[i].flatten(), expected, rtol=1e-8, atol=1e-12)


def test_the_direction_is_worse_than_random_ones_and_has_the_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    model, given, seen = built(VAT, epsilon=0.3, width=0.05), batch(DIGITS, 20), []
    ordinary = model.logits
    monkeypatch.setattr(model, "logits", lambda h: (seen.append(h.detach()), ordinary(h))[1])
    assert isinstance(model, VAT)
    model.eval()
    model.loss(given, generator=seeded())
    moved, clean = seen[-1], model.inputs(given["unlabelled"].x)
    assert torch.allclose((moved - clean).flatten(1).norm(dim=1), torch.full((40,), 0.3, dtype=torch.float64))
    target = ordinary(clean).detach()
    worst = divergence(target, ordinary(moved))
    for seed in range(20):
        noise = torch.randn(clean.shape, generator=seeded(seed), dtype=torch.float64)
        assert float((divergence(target, ordinary(clean + scaled_to(noise, 0.3))) <= worst).double().mean()) > 0.95


def test_the_term_moves_the_student_through_the_moved_examples_alone() -> None:
    model, given = built(VAT, epsilon=0.5), batch(DIGITS)
    parameters = [p for p in model.parameters() if p.requires_grad]
    found = torch.autograd.grad(model.loss(given, generator=seeded())["vat"].mean(), parameters, allow_unused=True)
    assert all(g is not None and float(g.abs().max()) > 0 for g in found if g is not None)
    assert sum(g is not None for g in found) >= len(parameters) - 1
    # The same by hand: the target and the direction are constants.
    assert isinstance(model, VAT)
    h = model.inputs(given["unlabelled"].x)
    start = torch.randn(h.shape, generator=seeded(), dtype=torch.float64)
    logits, direction = model.direction(h, start)
    moved = (h + scaled_to(direction, 0.5)).detach()
    by_hand = torch.autograd.grad(divergence(logits.detach(), model.logits(moved)).mean(), parameters)
    for own, expected in zip(found, by_hand, strict=True):
        assert own is not None
        assert torch.allclose(own, expected, rtol=1e-7, atol=1e-12)


def test_weights_of_zero_are_the_supervised_loss() -> None:
    given = batch(DIGITS)
    vat, plain = built(VAT, alpha=0.0), built(Supervised)
    plain.load_state_dict(vat.state_dict())
    one, two = (m.loss(given, generator=seeded())["loss"] for m in (vat, plain))
    assert torch.equal(one, two)
    gradients = [torch.autograd.grad(loss.mean(), list(m.parameters())) for loss, m in ((one, vat), (two, plain))]
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_running_averages_follow_clean_examples_alone() -> None:
    model, given = built(VAT, epsilon=1e6), batch(DIGITS)
    model.loss(given, generator=seeded())
    other = built(VAT)
    with torch.no_grad():
        other.logits(other.inputs(given.x))
        other.logits(other.inputs(given["unlabelled"].x))
    for one, two in zip(model.modules(), other.modules(), strict=True):
        if isinstance(one, BatchNorm) and isinstance(two, BatchNorm):
            assert torch.allclose(one.running_mean, two.running_mean, rtol=1e-9)
            assert torch.allclose(one.running_var, two.running_var, rtol=1e-9)


def test_the_term_is_the_same_in_half_precision() -> None:
    torch.manual_seed(0)
    model, given = VAT(DIGITS, classes=3, width=0.1, epsilon=0.5), batch(DIGITS, 32)
    model.prepare(given, generator=seeded())
    exact = model.loss(given, generator=seeded())["vat"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model.loss(given, generator=seeded())["vat"]
    assert half.dtype == torch.float32
    assert float(half.mean()) == pytest.approx(float(exact.mean()), rel=0.1)


@pytest.mark.parametrize("cls", [Supervised, VAT])
def test_bad_options_are_refused(cls: Callable[..., FewLabels]) -> None:
    with pytest.raises(InputError, match="classes=1 should be at least 2"):
        cls(DIGITS, classes=1)
    with pytest.raises(InputError, match="net='wrn-28-2' takes images of levels"):
        cls(PLANE, net="wrn-28-2")


# --- all of them ------------------------------------------------------------------------------------------------------

PLAIN: dict[str, Any] = {"views": "none"}
NOISY: dict[str, Any] = {"views": "none", "strong": "none", "noise": 0.3}
METHODS: dict[str, tuple[Callable[..., FewLabels], dict[str, Any]]] = {
    "entropy": (EntropyMinimisation, {}),
    "pi": (EntropyMinimisation, {"entropy": 0.0, "consistency": 2.0, "noise": 0.3}),
    "pseudo-label": (PseudoLabel, {}),
    "vat": (VAT, {}),
    "mean-teacher": (MeanTeacher, {}),
    "mixmatch": (MixMatch, PLAIN | {"unlabelled": 2}),
    "uda": (UDA, NOISY | {"threshold": 0.0, "unlabelled": 2}),
    "fixmatch": (FixMatch, NOISY | {"threshold": 0.0, "unlabelled": 2}),
}
TERM = {
    "entropy": "entropy",
    "pi": "consistency",
    "pseudo-label": "pseudo",
    "vat": "vat",
    "mean-teacher": "consistency",
}
TERM |= {"mixmatch": "guess", "uda": "consistency", "fixmatch": "pseudo"}
OFF: dict[str, dict[str, Any]] = {
    "entropy": {"entropy": 0.0},
    "pi": {"consistency": 0.0, "noise": 0.0},
    "pseudo-label": {"weight": 0.0},
    "vat": {"alpha": 0.0},
    **{key: {"weight": 0.0, "noise": 0.0} for key in ("mean-teacher", "uda", "fixmatch")},
}


def method(name: str, event: Event = DIGITS, **options: Any) -> FewLabels:
    cls, own = METHODS[name]
    return built(cls, event, **(own | options))


@pytest.mark.parametrize("event", [DIGITS, PLANE, TABLE], ids=str)
@pytest.mark.parametrize("name", METHODS)
def test_the_unsupervised_term_moves_the_student_and_only_the_student(name: str, event: Event) -> None:
    model, given = method(name, event), batch(event)
    if isinstance(model, MeanTeacher):
        with torch.no_grad():
            model.teacher[1].weight.add_(0.3)
    term = model.loss(given, generator=seeded())[TERM[name]]
    assert term.shape == (8,)
    assert float(term.detach().mean()) > 0
    term.mean().backward()
    moved = [p.grad is not None and bool(p.grad.abs().max() > 0) for p in model.parameters() if p.requires_grad]
    assert all(moved), [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    if isinstance(model, MeanTeacher):
        assert all(p.grad is None and not p.requires_grad for p in model.teacher.parameters())


@pytest.mark.parametrize("name", OFF)
def test_without_its_weight_a_method_is_supervised_learning(name: str) -> None:
    """Its gradient is that of the cross-entropy alone."""
    model, given = method(name, **OFF[name]), batch(DIGITS)
    model.eval()
    plain = built(Supervised).eval()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("teacher")})
    parameters = [[p for p in m.parameters() if p.requires_grad] for m in (model, plain)]
    found, expected = (
        torch.autograd.grad(m.loss(given, generator=seeded())["loss"].mean(), own)
        for m, own in zip((model, plain), parameters, strict=True)
    )
    for one, two in zip(found, expected, strict=True):
        assert torch.allclose(one, two, rtol=1e-9, atol=1e-14)


def test_the_pi_model_is_zero_without_noise_and_the_squared_distance_with_it() -> None:
    given = batch(DIGITS)
    quiet = method("pi", noise=0.0).loss(given, generator=seeded())
    assert float(quiet["consistency"].abs().max()) < 1e-20
    model = method("pi").eval()
    found = model.loss(given, generator=seeded())["consistency"]
    generator, views = seeded(), []
    for x in (given.x, given["unlabelled"].x, given["unlabelled"].x):
        h = model.inputs(x)
        views.append(h + 0.3 * torch.randn(h.shape, generator=generator, dtype=torch.float64))
    p, q = (model.logits(view).softmax(1) for view in views[1:])
    for i in range(8):
        expected = [float(((p[j] - q[j]) ** 2).mean()) for j in (2 * i, 2 * i + 1)]
        assert float(found[i]) == pytest.approx(sum(expected) / 2)


def test_the_ramp_decides_the_weight() -> None:
    model, given = method("entropy", ramp=0.8).eval(), batch(DIGITS)
    for step, rise in ((0, 0.006738), (400, 0.286505), (800, 1.0), (1000, 1.0)):
        terms = model.loss(replace(given, time=Time(step, 1000)), generator=seeded())
        assert torch.allclose(terms["loss"] - terms["cross_entropy"], rise * terms["entropy"], rtol=1e-4)


def test_pseudo_labels_are_the_predicted_ones_above_the_threshold() -> None:
    given = batch(DIGITS)
    model = method("pseudo-label", threshold=0.4, start=0.2, end=0.6).eval()
    terms = model.loss(given, generator=seeded())
    p = model.predict_proba(given["unlabelled"].x)
    has = p.amax(1) >= 0.4
    assert 0 < int(has.sum()) < len(has)
    each = torch.where(has, -p.amax(1).log(), 0.0).view(8, 2).mean(1)
    assert torch.allclose(terms["pseudo"], each)
    assert torch.equal(terms["labelled"], has.double().view(8, 2).mean(1))
    assert torch.allclose(terms["loss"], terms["cross_entropy"] + 3 * 0.75 * each)
    early = model.loss(replace(given, time=Time(100, 1000)), generator=seeded())
    assert torch.equal(early["loss"], early["cross_entropy"])
    with pytest.raises(InputError, match=r"end=0\.1 should be at least start=0\.17"):
        method("pseudo-label", end=0.1)


def test_the_teacher_is_the_average_of_the_students_and_predicts() -> None:
    model = method("mean-teacher", momentum=0.9)
    assert isinstance(model, MeanTeacher)
    first = model.head.weight.detach().clone()
    expected = first.clone()
    for step in range(30):
        with torch.no_grad():
            model.head.weight.add_(torch.randn(first.shape, generator=seeded(step), dtype=torch.float64))
        m = min(0.9, 1 - 1 / (step + 1))
        expected = m * expected + (1 - m) * model.head.weight.detach()
        model.after_step(Time(step, 30))
    assert torch.allclose(model.teacher[1].weight, expected, rtol=1e-12)
    x = batch(DIGITS).x
    model.eval()
    assert torch.allclose(model.predict_proba(x), model.teacher(model.inputs(x)).softmax(1))
    assert not torch.allclose(model.predict_proba(x), model.logits(model.inputs(x)).softmax(1))


def test_guesses_are_sharpened_means_without_gradient() -> None:
    model = method("mixmatch").eval()
    assert isinstance(model, MixMatch)
    views = [torch.rand(6, 1, 6, 6, generator=seeded(i), dtype=torch.float64) for i in range(3)]
    found = model.guess(views)
    assert not found.requires_grad
    p = torch.stack([model.logits(v).softmax(1) for v in views]).mean(0).detach()
    assert torch.allclose(found, p**2 / (p**2).sum(1, keepdim=True))


def test_mixtures_are_nearer_to_their_own_examples_each_with_its_share() -> None:
    model = method("mixmatch")
    assert isinstance(model, MixMatch)
    n = 400
    x = torch.eye(n, dtype=torch.float64).view(n, 1, 20, 20)
    y = torch.eye(3, dtype=torch.float64)[torch.arange(n) % 3]
    ((mixed, label),) = model.mixed([(x, y)], seeded())
    share = mixed.view(n, n).diagonal()
    assert float(share.min()) >= 0.5
    assert len(share.unique()) > 0.9 * n  # one for each example, not one for the batch
    assert torch.allclose(mixed.view(n, n).sum(1), torch.ones(n, dtype=torch.float64))
    assert torch.allclose(label.sum(1), torch.ones(n, dtype=torch.float64))
    assert torch.allclose(label, mixed.view(n, n) @ y)  # labels are mixed like examples
    # |2 λ − 1| of Beta(α, α): the variance of λ is 1 / (4 (2 α + 1)).
    assert float((share - 0.5).square().mean()) == pytest.approx(1 / (4 * 2.5), rel=0.15)


def test_mixing_goes_as_alpha_vanishes_and_one_pass_has_all_mixtures(monkeypatch: pytest.MonkeyPatch) -> None:
    model, given, seen = method("mixmatch", alpha=1e-6), batch(DIGITS), []
    ordinary = model.logits
    monkeypatch.setattr(model, "logits", lambda h: (seen.append(h.detach()), ordinary(h))[1])
    terms = model.loss(given, generator=seeded())
    h, u = model.inputs(given.x), model.inputs(given["unlabelled"].x)
    assert torch.allclose(seen[-1], torch.cat([h, u, u]))
    assert len(seen) == 3
    logits = ordinary(seen[-1])
    assert given.label is not None
    assert torch.allclose(
        terms["cross_entropy"], nn.functional.cross_entropy(logits[:8], given.label, reduction="none")
    )


def test_uda_masks_sharpens_and_averages_over_all() -> None:
    given = batch(DIGITS)
    model = method("uda", noise=0.0, threshold=0.4, temperature=0.5).eval()
    terms = model.loss(given, generator=seeded())
    p = model.predict_proba(given["unlabelled"].x)
    q = p**2 / (p**2).sum(1, keepdim=True)
    mask = p.amax(1) >= 0.4
    assert 0 < int(mask.sum()) < len(mask)
    expected = torch.where(mask, (q * (q / p).log()).sum(1), 0.0)
    assert torch.allclose(terms["consistency"], expected.view(8, 2).mean(1))
    assert torch.equal(terms["mask"], mask.double().view(8, 2).mean(1))
    same = method("uda", noise=0.0, temperature=1.0).eval().loss(given, generator=seeded())
    assert float(same["consistency"].abs().max()) < 1e-14


@pytest.mark.parametrize(("annealing", "step", "eta"), [("linear", 500, 2 / 3), ("exp", 1000, 1.0), ("log", 0, 1 / 3)])
def test_annealing_leaves_out_what_is_predicted_already(annealing: str, step: int, eta: float) -> None:
    model, given = method("uda", annealing=annealing).eval(), replace(batch(DIGITS, 24), time=Time(step, 1000))
    with torch.no_grad():
        model.head.weight.mul_(30)
    assert given.label is not None
    p = model.predict_proba(given.x).gather(1, given.label[:, None])[:, 0]
    kept = p <= eta
    assert bool(kept.all()) == (annealing == "exp")
    terms = model.loss(given, generator=seeded())
    assert torch.equal(terms["cross_entropy"] > 0, kept)
    assert float(terms["cross_entropy"].mean()) == pytest.approx(float(-p.log()[kept].mean()))


def test_fixmatch_masks_and_averages_over_all() -> None:
    given = batch(DIGITS)
    model = method("fixmatch", noise=0.0, threshold=0.4).eval()
    terms = model.loss(given, generator=seeded())
    p = model.predict_proba(given["unlabelled"].x)
    mask = p.amax(1) >= 0.4
    assert 0 < int(mask.sum()) < len(mask)
    assert torch.allclose(terms["pseudo"], torch.where(mask, -p.amax(1).log(), 0.0).view(8, 2).mean(1))
    none = method("fixmatch", threshold=1.0).eval().loss(given, generator=seeded())
    assert float(none["pseudo"].abs().max()) == 0
    assert torch.equal(none["loss"], none["cross_entropy"])


def test_recipes_are_for_images() -> None:
    with pytest.raises(InputError, match="views='crop-flip' is for images; this data is vector of 2"):
        MixMatch(PLANE, width=0.02)


class OfLabels(Model):
    """A model of another package that reads labels, and counts classes in its own way."""

    presets = {"tiny": {}}
    needs_labels = True

    def __init__(self, event: Event, *, groups: int = 4) -> None:
        self.groups = groups

    def loss(self, batch: Batch, *, generator: torch.Generator | None = None) -> Terms:
        raise NotImplementedError


def test_only_models_with_an_option_for_classes_are_given_them(monkeypatch: pytest.MonkeyPatch) -> None:
    data = unsup.load_data("digits")
    assert unsup.create("supervised", data, width=0.02).config["classes"] == 10
    monkeypatch.setattr(registry, "model_class", lambda name: OfLabels)
    assert unsup.create("supervised", data).config == {"groups": 4}
