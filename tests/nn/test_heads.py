"""Tables: a head per column, inputs of every kind of column, and categories that lie on no line."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import unsup
from unsup.core.batch import Batch
from unsup.core.errors import InputError
from unsup.core.event import BINARY, REAL, Event, Support
from unsup.core.model import NO_WORDS
from unsup.core.registry import model_class, names
from unsup.evaluate.likelihood import evaluate_likelihood
from unsup.families.autoregressive.made import MADE
from unsup.families.latent.vae import VAE
from unsup.nn.columns import Columns
from unsup.nn.heads import MOST_SYMBOLS, Heads, WholeNumbers
from unsup.nn.inputs import Features, TableInputs
from unsup.testing.cases import examples

TABLE = Event((5,), (Support("nominal", 4), REAL, Support("ordinal", 40, 1000), BINARY, Support("ordinal", 7, -2)))
GAPS = Event((5,), TABLE.columns, missing=True)
WORD = 0  # its column


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def prepared(event: Event, components: int | None = 3) -> tuple[Heads, Tensor]:
    x = examples(event, 300).x
    heads = Heads(event, components).double()
    heads.prepare(x, seeded())
    return heads, x


@pytest.mark.parametrize("components", [None, 1, 3])
def test_masses_of_every_discrete_column_sum_to_one_for_any_outputs(components: int | None) -> None:
    heads, _ = prepared(TABLE, components)
    outputs = 3 * torch.randn(20, sum(heads.sizes), generator=seeded(), dtype=torch.float64)
    for d, support in enumerate(TABLE.columns):
        if support.is_discrete:
            target = torch.zeros(support.levels, 1, 5, dtype=torch.float64)
            target[:, 0, d] = torch.arange(support.levels)
            total = heads.log_prob(target, outputs.expand(support.levels, 20, -1))[..., d].exp().sum(0)
            torch.testing.assert_close(total, torch.ones(20, dtype=torch.float64))


@pytest.mark.parametrize("components", [None, 3])
@torch.no_grad()
def test_draws_follow_the_masses_and_the_density(components: int | None) -> None:
    heads, _ = prepared(TABLE, components)
    outputs = torch.randn(sum(heads.sizes), generator=seeded(1), dtype=torch.float64)
    n = 20_000
    drawn = heads.draw(outputs.expand(n, -1), seeded(2))
    assert bool(TABLE.contains(heads.raw(drawn)).all())
    for d, support in enumerate(TABLE.columns):
        one_by_one = heads.draw_at(d, heads.padded(outputs.expand(n, -1))[:, d], seeded(3))
        for own in (drawn[:, d], one_by_one):
            if support.is_discrete:
                target = torch.zeros(support.levels, 5, dtype=torch.float64)
                target[:, d] = torch.arange(support.levels)
                p = heads.log_prob(target, outputs.expand(support.levels, -1))[:, d].exp()
                found = own.long().bincount(minlength=support.levels) / n
                assert float((found - p).abs().max()) < 0.02
            else:
                target = torch.zeros(4001, 5, dtype=torch.float64)
                target[:, d] = torch.linspace(-20, 20, 4001)
                log_p = heads.log_prob(target, outputs.expand(4001, -1))[:, d] - heads.columns.log_derivatives()[d]
                mean = (log_p.exp() * target[:, d]).sum() * 0.01
                assert float(log_p.exp().sum()) * 0.01 == pytest.approx(1, abs=1e-4)
                assert float(own.mean()) == pytest.approx(float(mean), abs=5 * float(own.std()) / math.sqrt(n))


def test_few_whole_numbers_are_symbols_and_many_are_not() -> None:
    few, many = (Heads(Event((2,), (Support("ordinal", k), REAL))) for k in (MOST_SYMBOLS, MOST_SYMBOLS + 1))
    assert few.sizes[0] == MOST_SYMBOLS
    assert many.sizes[0] == 2


def test_the_start_is_the_marginals_of_the_observed_entries() -> None:
    heads, x = prepared(GAPS, None)
    outputs = heads.marginal(x.flatten(1)).double()
    target = torch.zeros(4, 5, dtype=torch.float64)
    target[:, WORD] = torch.arange(4)
    found = heads.log_prob(target, outputs.expand(4, -1))[:, WORD].exp()
    observed = x[:, WORD][~x[:, WORD].isnan()].long()
    torch.testing.assert_close(
        found, (observed.bincount(minlength=4) + 1).double() / (len(observed) + 4), rtol=1e-6, atol=0
    )


def test_a_column_of_few_large_counts_and_many_small_ones_is_learned() -> None:
    """With the scale of the range, as for pixels, all small counts would be one value."""
    head = WholeNumbers([10_001], 5)
    counts = torch.cat([torch.arange(5).repeat_interleave(200), torch.tensor([10_000, 8000])]).float()[:, None]
    head.prepare(counts)
    outputs = head.marginal(counts).clone().requires_grad_()
    optimizer = torch.optim.Adam([outputs], 0.05)
    for _ in range(600):
        optimizer.zero_grad()
        loss = -head.log_prob(counts, outputs.expand(len(counts), 1, -1)).mean()
        loss.backward()
        optimizer.step()
    assert float(loss) < 2.2  # uniform on the five small counts is log 5 = 1.61; on all it is 9.2


def test_missing_entries_are_zero_features_with_an_indicator_and_nothing_else_changes() -> None:
    x = examples(GAPS, 50).x
    units = Columns(GAPS)(x)
    inputs, plain = TableInputs(GAPS), TableInputs(TABLE)
    features, complete = inputs(units), plain(units.nan_to_num(0.0))
    at = 0
    for d, (size, own) in enumerate(zip(inputs.sizes, plain.sizes, strict=True)):
        assert size == own + 1
        part, gap = features[:, at : at + size], x[:, d].isnan()
        assert bool((part[gap, :-1] == 0).all())
        assert torch.equal(part[:, -1], gap.float())
        start = sum(plain.sizes[:d])
        assert torch.equal(part[~gap, :-1], complete[~gap, start : start + own])
        torch.testing.assert_close(inputs.at(d, units[~gap, d]), part[~gap])
        at += size


def test_categories_of_a_condition_are_one_hot() -> None:
    features = Features(Event((2,), (Support("nominal", 3), REAL)))
    assert features(torch.tensor([[2.0, 0.5]])).tolist() == [[0.0, 0.0, 1.0, 0.5]]


ORDER = torch.tensor([2, 0, 3, 1])  # new numbers of the categories


def _renumbered(rows: Tensor) -> Tensor:
    """Weights of the four categories, which come first, in their new places."""
    moved = rows.clone()
    moved[ORDER] = rows[:4]
    return moved


@pytest.mark.parametrize("event", [TABLE, GAPS])
@torch.no_grad()
def test_made_and_vae_with_renumbered_categories_are_the_same_with_permuted_weights(event: Event) -> None:
    x = examples(event, 40).x
    other = x.clone()
    known = ~x[:, WORD].isnan()
    other[known, WORD] = ORDER[x[known, WORD].long()].to(x.dtype)
    for model in (MADE(event, hidden=(20,)).double(), VAE(event, latent_dim=2, hidden=(20,)).double()):
        model.prepare(Batch(x), generator=seeded())
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=seeded(1), dtype=p.dtype))
        before = model.eval().log_prob(x, generator=seeded(2))
        if isinstance(model, MADE):
            seen, made = [model.net.layers[0], model.net.direct], [model.net.top, model.net.direct]
        else:
            seen, made = [model.nets.encoder[1]], [model.nets.decoder[-1]]
        for layer in seen:
            layer.weight.copy_(_renumbered(layer.weight.T).T)
        for layer in made:
            layer.weight.copy_(_renumbered(layer.weight))
            if layer.bias is not None:
                layer.bias.copy_(_renumbered(layer.bias))
        torch.testing.assert_close(model.log_prob(other, generator=seeded(2)), before)


@pytest.mark.parametrize("name", names())
def test_models_either_have_categories_or_refuse_them_in_one_clause(name: str) -> None:
    cls = model_class(name)
    reason = cls.refusal(TABLE)
    if reason is None:
        assert name in {
            *("made", "vae", "hierarchical-vae", "gaussian-mixture", "histogram", "naive-bayes", "latent", "vq-vae"),
            *("kde", "autoencoder", "denoising-autoencoder"),
            *names("semisup"),
        }
        assert (cls.refusal(GAPS) is None) == (name not in ("kde", *names("semisup")))
    elif cls.refusal(Event((2,), REAL)) is None and "of one kind only" not in reason:  # tables are not the problem
        assert reason == NO_WORDS
        assert cls.refusal(Event((2,), (Support("nominal", 2), REAL))) is None
        with pytest.raises(InputError, match=r"made, vae, gaussian-mixture or histogram"):
            unsup.create(name, TABLE)


@pytest.mark.parametrize(("name", "kind"), [("made", "exact"), ("gaussian-mixture", "exact"), ("vae", "bound")])
def test_the_likelihood_of_a_table_says_what_it_consists_of(name: str, kind: str) -> None:
    model = unsup.create(name, TABLE, preset="tiny", seed=0)
    x = examples(TABLE, 50).x
    model.prepare(Batch(x), generator=seeded())
    found = evaluate_likelihood(model, x)
    assert found.kind == model.likelihood_kind == kind
    assert str(found).endswith("; 4 columns are masses, 1 density: nats and bits mix both")
    assert "masses" not in str(
        evaluate_likelihood(unsup.create(name, Event((2,), REAL), preset="tiny"), torch.zeros(3, 2))
    )
