"""SimCLR, MoCo, BYOL, SimSiam, VICReg, Barlow Twins: losses by hand, and who moves what."""

from __future__ import annotations

import math
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unsup
from unsup.core.batch import Batch, Time
from unsup.core.errors import InputError
from unsup.core.event import Event, Support
from unsup.core.random import keyed_generator
from unsup.data import load_data
from unsup.families.selfsup import vicreg
from unsup.families.selfsup.byol import BYOL
from unsup.families.selfsup.moco import MoCo
from unsup.families.selfsup.simclr import SimCLR
from unsup.families.selfsup.vicreg import VICReg
from unsup.nn.augment import RECIPES, augment
from unsup.nn.norm import BatchNorm, sizes_of_groups, statistics_of_groups
from unsup.prob import contrast
from unsup.train.trainer import fit

EVENT = Event((3, 8, 8), Support("ordinal", 256), "image")
LEAST = 1e-10  # of a gradient that is there


def images(n: int = 12) -> Batch:
    generator = torch.Generator().manual_seed(3)
    return Batch(torch.randint(0, 256, (n, 3, 8, 8), generator=generator, dtype=torch.uint8))


def created(name: str, **options: Any) -> Any:
    model = unsup.create(name, EVENT, preset="tiny", seed=0, **options).double().train()
    model.prepare(images(), generator=torch.Generator().manual_seed(0))
    return model


def views(model: Any, recipes: tuple[Any, Any]) -> list[Tensor]:
    """The views that a loss with the same generator sees."""
    generator, x = keyed_generator(0), model.unit(images().x)
    return [augment(x, recipe, generator) for recipe in recipes]


def test_the_loss_of_simclr_is_that_of_its_views() -> None:
    model = created("simclr")
    assert isinstance(model, SimCLR)
    found = model.loss(images(), generator=keyed_generator(0))["loss"]
    z = model.head(model.backbone(torch.cat(views(model, (model.recipe, model.recipe)))))
    assert torch.allclose(found, contrast.nt_xent(*z.chunk(2), model.temperature), atol=1e-12)


def test_the_loss_of_byol_is_the_sum_of_both_ways_and_moves_the_student_only() -> None:
    model = created("byol")
    assert isinstance(model, BYOL)
    assert model.teacher is not None
    with torch.no_grad():
        for p in model.teacher.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1), dtype=p.dtype))
    found = model.loss(images(), generator=keyed_generator(0))["loss"]
    one, two = views(model, model.recipes)
    expected = torch.zeros(12, dtype=torch.float64)
    for seen, other in ((one, two), (two, one)):
        q = model.predictor(model.projector(model.backbone(seen)))
        z = model.teacher(other)
        q, z = q / q.norm(dim=1, keepdim=True), z / z.norm(dim=1, keepdim=True)
        expected = expected + (q - z).square().sum(1)
    assert torch.allclose(found, expected, atol=1e-10)
    found.sum().backward()
    assert all(p.grad is None for p in model.teacher.parameters())
    for part in (model.backbone, model.projector, model.predictor):
        assert all(p.grad is not None and float(p.grad.abs().max()) > LEAST for p in part.parameters() if p.ndim > 1)


def test_the_teacher_of_byol_follows_with_a_momentum_that_rises_to_one() -> None:
    model = created("byol", momentum=0.9)
    assert isinstance(model, BYOL)
    assert model.teacher is not None
    student, before = model.backbone, [p.clone() for p in model.teacher[0].parameters()]
    with torch.no_grad():
        for p in student.parameters():
            p.add_(1.0)
    model.after_step(Time(5, 10))
    for own, old in zip(model.teacher[0].parameters(), before, strict=True):
        assert torch.allclose(own, old + 0.05)  # 1 − m = 0.1 · ½ in the middle of a run
    model.after_step(Time(10, 10))
    for own, old in zip(model.teacher[0].parameters(), before, strict=True):
        assert torch.allclose(own, old + 0.05)


def test_simsiam_stops_the_gradient_at_the_target() -> None:
    model = created("byol", teacher=False)
    assert isinstance(model, BYOL)
    assert model.teacher is None
    batch = images()
    found = model.loss(batch, generator=keyed_generator(0))["loss"]
    one, two = views(model, model.recipes)
    z = [model.projector(model.backbone(view)) for view in (one, two)]
    q = [model.predictor(own) for own in z]
    cosines = [nn.functional.cosine_similarity(q[i], z[1 - i].detach(), dim=1) for i in (0, 1)]
    expected = 1 - 0.5 * (cosines[0] + cosines[1])
    assert torch.allclose(found, expected, atol=1e-12)
    own = torch.autograd.grad(found.sum(), list(model.backbone.parameters()))
    others = torch.autograd.grad(expected.sum(), list(model.backbone.parameters()))
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(own, others, strict=True))


def test_the_terms_of_vicreg_move_what_they_should() -> None:
    model = created("vicreg")
    assert isinstance(model, VICReg)
    terms = model.loss(images(), generator=keyed_generator(0))
    expected = 25 * terms["invariance"] + 25 * terms["variance"] + terms["covariance"]
    assert torch.allclose(terms["loss"], expected, atol=1e-10)
    gradients = {}
    for name in ("invariance", "variance", "covariance"):
        only = created("vicreg", **{other: float(other == name) for other in ("invariance", "variance", "covariance")})
        only.loss(images(), generator=keyed_generator(0))["loss"].mean().backward()
        gradients[name] = torch.cat([p.grad.flatten() for p in only.parameters()])
        assert float(gradients[name].abs().max()) > LEAST
    model.loss(images(), generator=keyed_generator(0))["loss"].mean().backward()
    whole = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    total = 25 * gradients["invariance"] + 25 * gradients["variance"] + gradients["covariance"]
    assert torch.allclose(whole, total, atol=1e-9)


def test_barlow_twins_is_that_of_the_correlation() -> None:
    model = created("vicreg", objective="barlow-twins")
    found = model.loss(images(), generator=keyed_generator(0))
    first, second = (model.head(model.backbone(view)) for view in views(model, model.recipes))
    on, off = contrast.redundancy(contrast.cross_correlation(first, second), 0.005)
    assert torch.allclose(found["loss"], on + off, atol=1e-10)


@pytest.mark.parametrize("objective", ["vicreg", "barlow-twins"])
def test_embeddings_of_one_view_do_not_depend_on_the_other(objective: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Statistics of batch normalisation are those of one view, as in the published codes."""
    one, other, third = torch.rand(3, 12, 3, 8, 8, dtype=torch.float64, generator=keyed_generator(0))
    found = []
    for pair in ((one, other), (one, third)):
        model, seen = created("vicreg", objective=objective), []
        pending = iter(pair)
        monkeypatch.setattr(vicreg, "augment", lambda x, recipe, generator, pending=pending: next(pending))
        model.head.register_forward_hook(lambda module, inputs, z, seen=seen: seen.append(z.detach()))
        model.loss(images(), generator=keyed_generator(0))
        found.append(torch.cat(seen).chunk(2))
    assert torch.equal(found[0][0], found[1][0])
    assert not torch.allclose(found[0][1], found[1][1])


def slow_moco(model: MoCo, sizes: list[int]) -> tuple[Tensor, Tensor]:
    """Losses of MoCo and its keys by loops, with a forward pass for each group of ``sizes`` examples."""
    generator, x = keyed_generator(0), model.unit(images(sum(sizes)).x)
    one, other = (augment(x, model.recipe, generator) for _ in range(2))
    queries: list[Tensor] = []
    for view in one.split(sizes):
        queries += [q / q.norm() for q in model.head(model.backbone(view))]
    keys: dict[int, Tensor] = {}
    for places in torch.randperm(len(x), generator=generator).split(sizes):
        keys |= {int(i): k / k.norm() for i, k in zip(places, model.teacher(other[places]), strict=True)}
    found = []
    for i, q in enumerate(queries):
        own = (q @ keys[i] / model.temperature).exp()
        total = own.clone()
        for old in model.queue.rows:
            total = total + (q @ old / model.temperature).exp()
        found.append(-(own / total).log())
    return torch.stack(found), torch.stack([keys[i] for i in range(len(x))])


@pytest.mark.parametrize(
    ("group", "sizes"), [(3, [3, 3, 3, 3]), (5, [6, 6]), (12, [6, 6]), (3, [4, 3, 3]), (2, [3, 2, 2]), (50, [2, 2])]
)
def test_the_loss_of_moco_and_its_gradient_are_those_of_loops(group: int, sizes: list[int]) -> None:
    fast, slow = (created("moco", group=group, queue=32) for _ in range(2))
    found = fast.loss(images(sum(sizes)), generator=keyed_generator(0))["loss"]
    expected, _ = slow_moco(slow, sizes)
    assert torch.allclose(found, expected, atol=1e-10)
    gradients: list[Tensor] = []
    for model, loss in ((fast, found), (slow, expected)):
        (loss * torch.arange(1, sum(sizes) + 1)).sum().backward()
        assert all(p.grad is None for p in model.teacher.parameters())
        student = (*model.backbone.parameters(), *model.head.parameters())
        gradients.append(torch.cat([p.grad.flatten() for p in student]))
    largest = float(gradients[1].abs().max())
    assert largest > LEAST
    assert float((gradients[0] - gradients[1]).abs().max()) < 1e-6 * largest


def test_queries_of_moco_meet_the_queue_as_it_was_and_keys_are_put_into_it() -> None:
    model, slow = (created("moco", group=4) for _ in range(2))
    assert isinstance(model, MoCo)
    before = model.queue.rows.clone()
    model.loss(images(), generator=keyed_generator(0))
    _, keys = slow_moco(slow, [4, 4, 4])
    assert torch.allclose(model.queue.in_order()[-12:], keys, atol=1e-10)
    assert torch.equal(model.queue.in_order()[:-12], before[12:])
    model.eval()
    model.loss(images(), generator=keyed_generator(0))
    assert torch.equal(model.queue.in_order()[:-12], before[12:])  # evaluation changes nothing


def test_queries_of_moco_that_say_nothing_are_at_chance() -> None:
    model = created("moco", queue=20)
    assert isinstance(model, MoCo)
    nn.init.zeros_(model.head[-1].weight)
    nn.init.zeros_(model.head[-1].bias)
    loss = model.loss(images(), generator=keyed_generator(0))["loss"]
    assert torch.allclose(loss, torch.full((12,), math.log(21), dtype=torch.float64), atol=1e-12)


def test_keys_are_put_back_in_order_after_they_were_shuffled_between_groups() -> None:
    model = created("moco", group=3)
    assert isinstance(model, MoCo)
    view = torch.rand(12, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    model.teacher.eval()  # running averages: each key depends on its image alone
    with statistics_of_groups(3):
        keys = model._keys(view, keyed_generator(0))
    assert torch.allclose(keys, contrast.unit(model.teacher(view)), atol=1e-12)


def test_statistics_of_groups_are_those_of_each_group() -> None:
    x = torch.randn(10, 4, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    grouped, plain = BatchNorm(4).double(), BatchNorm(4).double()
    with statistics_of_groups(4):
        found = grouped(x)
    means, variances = [], []
    for group, own in zip(x.split(5), found.split(5), strict=True):  # a group of two would be much smaller
        assert torch.allclose(own, BatchNorm(4).double()(group), atol=1e-10)
        means.append(group.mean((0, 2, 3)))
        variances.append(group.transpose(0, 1).flatten(1).var(1))
    assert torch.allclose(grouped.running_mean, 0.1 * torch.stack(means).mean(0), atol=1e-10)
    assert torch.allclose(grouped.running_var, 0.9 + 0.1 * torch.stack(variances).mean(0), atol=1e-8)
    outside = plain.eval()(x)
    with statistics_of_groups(4):
        assert torch.equal(plain(x), outside)  # in evaluation there are no groups


def test_groups_differ_by_one_example_at_most_and_there_are_two_of_two_or_more() -> None:
    for count in range(4, 80):
        for size in range(2, 100):
            sizes = sizes_of_groups(count, size)
            assert sum(sizes) == count
            assert len(sizes) >= 2
            assert min(sizes) >= 2
            assert max(sizes) - min(sizes) <= 1
            assert count < 2 * size or size <= min(sizes) < 2 * size


@pytest.mark.parametrize(("group", "sizes"), [(3, [3, 3, 3, 3]), (12, [6, 6]), (50, [6, 6]), (4, [5, 4, 4])])
def test_no_batch_statistics_leak_between_a_query_and_its_key(group: int, sizes: list[int]) -> None:
    """Changing one image changes the queries of its group only, and the keys of a group of other examples."""
    model = created("moco", group=group)
    x = torch.rand(sum(sizes), 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    together = [set(places.tolist()) for places in torch.arange(len(x)).split(sizes)]
    for i in range(len(x)):
        changed = x.clone()
        changed[i] = 1 - x[i]
        with torch.no_grad(), statistics_of_groups(group):
            queries = [model.head(model.backbone(view)) for view in (x, changed)]
            keys = [model._keys(view, keyed_generator(5)) for view in (x, changed)]
        moved = [set((one != two).any(1).nonzero().flatten().tolist()) for one, two in (queries, keys)]
        assert moved[0] == next(own for own in together if i in own)
        assert i in moved[1]
        assert len(moved[1]) in sizes
        assert moved[1] not in together


@pytest.mark.parametrize("settings", [{"batch_size": 3}, {"batch_size": 6, "accumulate": 3}])
def test_a_batch_without_two_groups_of_two_is_refused_before_training(settings: dict[str, Any], tmp_path: Path) -> None:
    data = load_data("digits")
    model = unsup.create("moco", data.event, preset="tiny", seed=0)
    with pytest.raises(InputError, match=r"^MoCo needs 4 .*\(--model.group\), and has [23]; .*--batch-size$"):
        fit(model, data, out=tmp_path / "run", steps=1, progress="off", **settings)
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match=r"MoCo needs 4 examples or more at once.* and has 3"):
        created("moco").loss(images(3), generator=keyed_generator(0))
    created("moco").eval().loss(images(3), generator=keyed_generator(0))  # no statistics of groups


@pytest.mark.parametrize(
    "settings", [{"batch_size": 1}, {"batch_size": 3, "accumulate": 2}, {"batch_size": 3, "accumulate": 3}]
)
@pytest.mark.parametrize(
    ("name", "options"), [("byol", {}), ("byol", {"teacher": False}), ("simclr", {}), ("vicreg", {})]
)
def test_a_part_of_one_example_is_refused_before_training(
    name: str, options: dict[str, Any], settings: dict[str, Any], tmp_path: Path
) -> None:
    data = load_data("digits", limit=20)
    model = unsup.create(name, data.event, preset="tiny", seed=0, **options)
    with pytest.raises(InputError, match=r"needs 2 examples or more at once, and has 1; .*--batch-size.*--accumulate$"):
        fit(model, data, out=tmp_path / "run", steps=1, progress="off", **settings)
    assert not (tmp_path / "run").exists()
    assert fit(model, data, steps=1, batch_size=4, accumulate=2, progress="off").steps == 1


@pytest.mark.parametrize("settings", [{"batch_size": 9}, {"batch_size": 12, "accumulate": 2}])
def test_a_batch_larger_than_the_queue_is_refused_before_training(settings: dict[str, Any], tmp_path: Path) -> None:
    data, out = load_data("digits"), tmp_path / "run"
    short, long = (unsup.create("moco", data.event, preset="tiny", queue=queue, seed=0) for queue in (8, 64))
    with pytest.raises(InputError, match=r"^MoCo has a batch of \d+ examples and a queue of 8 keys; .*--model.queue"):
        fit(short, data, out=out, steps=1, progress="off", **settings)
    assert fit(long, data, out=out, steps=1, progress="off", **settings).steps == 1
    with pytest.raises(InputError, match="MoCo has a batch of 12 examples and a queue of 8 keys"):
        created("moco", queue=8).loss(images(), generator=keyed_generator(0))
    created("moco", queue=8).eval().loss(images(), generator=keyed_generator(0))  # no key is put into it


def test_moco_trains_with_batches_that_are_no_multiple_of_the_group() -> None:
    data = load_data("digits", limit=30)  # the last batch of an epoch would be a small one; there is none
    model = unsup.create("moco", data.event, preset="tiny", group=3, seed=0)
    assert fit(model, data, steps=12, batch_size=7, validate_every=0, progress="off").steps == 12


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("simclr", {}),
        ("moco", {}),
        ("byol", {}),
        ("byol", {"teacher": False}),
        ("vicreg", {}),
        ("vicreg", {"objective": "barlow-twins"}),
    ],
)
def test_losses_under_autocast_are_sums_in_float32(name: str, options: dict[str, Any]) -> None:
    model = created(name, **options).float()
    with torch.autocast("cpu", torch.bfloat16):
        terms = model.loss(images(), generator=keyed_generator(0))
    assert {term: value.dtype for term, value in terms.items()} == dict.fromkeys(terms, torch.float32)
    terms["loss"].mean().backward()


def layers(head: nn.Sequential) -> list[tuple[str, tuple[int, ...], bool]]:
    """The kind of each layer, the shape of its weights, and whether it has an offset; without the ReLUs."""
    told = {nn.Linear: "linear", BatchNorm: "norm"}
    found = [m for m in head if not isinstance(m, nn.ReLU)]
    return [(told[type(m)], () if m.weight is None else tuple(m.weight.shape), m.bias is not None) for m in found]


def test_the_heads_of_simsiam_are_those_of_the_paper() -> None:
    """Batch normalisation after every layer of the projector, the last one included, but not after the predictor."""
    model = unsup.create("byol", EVENT, preset="paper-simsiam", net="mlp", width=0.02)
    assert isinstance(model, BYOL)
    assert model.teacher is None
    inner = [("linear", (2048, 2048), False), ("norm", (2048,), True)]
    assert layers(model.projector) == [
        ("linear", (2048, 20), False),
        ("norm", (2048,), True),
        *inner,
        ("linear", (2048, 2048), False),
        ("norm", (), False),
    ]
    first = [("linear", (512, 2048), False), ("norm", (512,), True)]
    assert layers(model.predictor) == [*first, ("linear", (2048, 512), True)]
    assert model.recipes[0] is model.recipes[1] is RECIPES["moco-v2"]
    assert BYOL.presets["paper-simsiam"]["net"] == "resnet50"


@pytest.mark.parametrize("teacher", [True, False])
def test_the_projection_ends_with_a_normalisation_in_simsiam_only(teacher: bool) -> None:
    model = created("byol", teacher=teacher)
    assert isinstance(model.projector[-1], BatchNorm) != teacher
    assert isinstance(model.predictor[-1], nn.Linear)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("simclr", {"views": "simclrr"}, "no augmentation recipe 'simclrr'"),
        ("byol", {"views": ("none", "none", "none")}, "are 3 recipes; expected one for both views, or two"),
        ("simclr", {"net": "conv-large"}, "needs 12 pixels or more; these are 8×8"),
    ],
)
def test_options_that_do_not_fit_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        unsup.create(name, EVENT, preset="tiny", **options)


def test_bad_data_is_refused() -> None:
    with pytest.raises(InputError, match="takes images"):
        unsup.create("simclr", Event((5,), Support("ordinal", 256)))
    with pytest.raises(InputError, match="takes images of levels"):
        unsup.create("simclr", Event((1, 8, 8), Support("real"), "image"))
    model = created("moco", queue=8)
    with pytest.raises(InputError, match="a batch of 12 examples and a queue of 8 keys"):
        model.loss(images(), generator=keyed_generator(0))


VIEWS = {"simclr": "simclr-small", "moco": "moco-v2", "byol": "byol-second", "vicreg": "simclr", "mae": "crop"}
VIEWS |= {"rotation": "crop-flip"}
"""The models that augment images, and a recipe of each."""


def of_views(name: str, event: Event, *views: str) -> Any:
    """A model with recipes of views, or with those of its defaults."""
    given: dict[str, Any] = {"views": views if name in ("byol", "vicreg") else views[0]} if views else {}
    return unsup.create(name, event, preset="tiny", **given)


@pytest.mark.parametrize("name", VIEWS)
def test_recipes_that_do_not_fit_the_images_are_refused_when_the_model_is_built(name: str) -> None:
    event = Event((4, 8, 8), Support("ordinal", 256), "image")
    for views in ((), (VIEWS[name],)):  # the default, too
        with pytest.raises(InputError, match=r"views='[\w-]+' does not fit: .*\(4, 8, 8\).*; use --model.views none"):
            of_views(name, event, *views)
    with pytest.raises(InputError, match=r"views='sound' does not fit: .* use --model.views none"):
        of_views(name, EVENT, "sound")
    x = torch.randint(0, 256, (12, 4, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    model = of_views(name, event, "none")
    model.prepare(Batch(x), generator=keyed_generator(0))
    assert bool(model.loss(Batch(x), generator=keyed_generator(0))["loss"].isfinite().all())


@pytest.mark.parametrize("name", ["byol", "vicreg"])
def test_the_second_of_two_recipes_is_checked_too(name: str) -> None:
    with pytest.raises(InputError, match="views='crop-flip' does not fit: an example has 8×3 pixels; expected"):
        of_views(name, Event((3, 8, 3), Support("ordinal", 256), "image"), "none", "crop-flip")


def test_collapse_is_said() -> None:
    model = created("byol")
    symptom = model.diagnose({"loss": 0.1, "spread": 0.02})
    assert symptom is not None
    assert symptom.name == "collapse"
    assert model.diagnose({"loss": 0.1, "spread": 0.9}) is None


@pytest.mark.parametrize("name", ["moco", "byol"])
def test_a_resumed_run_has_the_queue_and_the_teacher(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load_data("digits")
    settings: dict[str, Any] = {"steps": 6, "batch_size": 32, "ema": 0.0, "progress": "off", "validate_every": 0}
    whole = unsup.create(name, data.event, preset="tiny", seed=0)
    fit(whole, data, **settings)
    broken = unsup.create(name, data.event, preset="tiny", seed=0)
    after = broken.after_step

    def interrupted(time: Time) -> None:
        after(time)
        if time.step == 3:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(broken, "after_step", interrupted)
    assert fit(broken, data, out=tmp_path / "run", **settings).interrupted
    resumed = unsup.create(name, data.event, preset="tiny", seed=1)
    found = fit(resumed, data, out=tmp_path / "run", resume=True, **settings)
    assert found.steps == 6
    state = resumed.state_dict()
    for key, value in whole.state_dict().items():
        assert torch.equal(state[key], value), key


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("byol", {"teacher": False, "momentum": 0.9}, "BYOL: momentum=0.9 is for teacher=True, got False"),
        ("vicreg", {"redundancy": 0.1}, "VICReg: redundancy=0.1 is for objective='barlow-twins', got 'vicreg'"),
        *(
            ("vicreg", {"objective": "barlow-twins", weight: 3.0}, f"VICReg: {weight}=3.0 is for objective='vicreg'")
            for weight in ("invariance", "variance", "covariance")
        ),
    ],
)
def test_options_without_effect_are_refused(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=re.escape(words)):
        unsup.create(name, EVENT, preset="tiny", **options)


def test_the_preset_of_byol_has_a_momentum_that_simsiam_refuses() -> None:
    with pytest.raises(InputError, match="momentum"):
        unsup.create("byol", EVENT, preset="paper", net="mlp", width=0.02, teacher=False)
