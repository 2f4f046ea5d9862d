"""Classifiers of few labels: what their losses are, what they move, and the adversarial direction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unsup.core.batch import Batch
from unsup.core.errors import InputError
from unsup.core.event import REAL, Event, Support
from unsup.families.semisup.supervised import Supervised
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
    label = torch.arange(n) % classes
    return Batch(examples(event, n, seed), label, streams={"unlabelled": Batch(examples(event, each * n, seed + 50))})


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
