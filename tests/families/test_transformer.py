"""The transformer against its equations in loops, and its auxiliary losses term by term."""

from __future__ import annotations

import math

import pytest
import torch
from decoders import norm, text
from entry_models import generator, random_model, seen_by_jacobian
from torch import Tensor

import unsup
from unsup.core.batch import Batch, Time
from unsup.core.event import Event, Support, labels
from unsup.families.autoregressive.transformer import Transformer, contributes


def by_loops(model: Transformer, x: list[int], places: list[Tensor], c: Tensor | None) -> list[Tensor]:
    """The equations of the module's docstring, site by site: the features after each block, and the logits last."""
    shift = 0 if c is None else model.tokens.condition.weight @ c
    before = [model.tokens.start, *(model.tokens.weight[v] for v in x[:-1])]
    h = torch.stack([e + p + shift for e, p in zip(before, places, strict=True)])
    states = []
    for block in model.blocks:
        attention, heads = block.attention, block.attention.heads
        q, k, v = torch.stack([attention.queries_keys_values(norm(row, block.first)) for row in h]).chunk(3, 1)
        d = h.shape[1] // heads
        added = torch.zeros_like(h)
        for t in range(len(h)):
            for head in range(heads):
                own = slice(head * d, (head + 1) * d)
                weights = torch.stack([q[t, own] @ k[s, own] / math.sqrt(d) for s in range(t + 1)]).softmax(0)
                added[t, own] = sum(weights[s] * v[s, own] for s in range(t + 1))
        h = h + added @ attention.out.weight.T + attention.out.bias
        first, last = block.net[0], block.net[2]
        for t in range(len(h)):
            a = first.weight @ norm(h[t], block.second) + first.bias
            gelu = a * (1 + torch.erf(a / math.sqrt(2))) / 2
            h = torch.cat([h[:t], (h[t] + last.weight @ gelu + last.bias)[None], h[t + 1 :]])
        states.append(h)
    final = model.head.module
    states.append(torch.stack([final[1](norm(row, final[0])) for row in h]))
    return states


@pytest.mark.parametrize("given", [None, labels(3)], ids=str)
@torch.no_grad()
def test_conditionals_are_the_equations_by_loops(given: Event | None) -> None:
    model = random_model("transformer", text(6), given=given)
    x = torch.randint(5, (6,), generator=generator(1))
    places = [model.places.tables[0][t] for t in range(6)]
    told = {} if given is None else {"given": torch.tensor(2)}
    c = None if given is None else torch.tensor([0.0, 0.0, 1.0]).double()
    expected = by_loops(model, x.tolist(), places, c)[-1]
    torch.testing.assert_close(model.conditionals(x[None], **told)[0], expected, rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_images_have_places_by_row_column_and_channel() -> None:
    event = Event((2, 2, 3), Support("ordinal", 4, low=1))
    model = random_model("transformer", event)
    channels, rows, columns = model.places.tables
    places = [channels[c] + rows[r] + columns[w] for r in range(2) for w in range(3) for c in range(2)]
    x = 1 + torch.randint(4, event.shape, generator=generator(1))
    line = (x - 1).permute(1, 2, 0).flatten().tolist()
    expected = by_loops(model, line, places, None)[-1][model.orders[0]]
    torch.testing.assert_close(model.conditionals(x[None])[0], expected, rtol=1e-10, atol=1e-10)


def test_every_earlier_entry_is_seen_from_the_first_layer_on() -> None:
    model = random_model("transformer", text(7), layers=1)
    assert not model.blind_spot().any()
    assert torch.equal(seen_by_jacobian(model), torch.ones(7, 7).tril(-1) > 0)


# --- auxiliary losses -------------------------------------------------------------------------------------------------


def with_auxiliary(**options: object) -> Transformer:
    model = random_model("transformer", text(6), layers=4, auxiliary=True, **options).train()
    assert isinstance(model, Transformer)
    return model


def at(share: float) -> Time:
    return Time(step=round(1000 * share), total=1000)


def test_layer_l_of_n_stops_at_l_of_2n() -> None:
    for layers in (2, 4, 12):
        for layer in range(1, layers):
            end = layer / (2 * layers)
            assert contributes(layer, layers, at(0))
            assert contributes(layer, layers, at(end - 0.002))
            assert not contributes(layer, layers, at(end + 0.002))
    assert not contributes(63, 64, at(0.5))  # all of them are dropped after half of the training


@pytest.mark.parametrize("share", [0.0, 0.2, 0.3, 0.6])
@torch.no_grad()
def test_auxiliary_terms_are_those_of_the_layers_that_still_contribute(share: float) -> None:
    model = with_auxiliary()
    x = torch.randint(5, (6,), generator=generator(1))
    terms = model.loss(Batch(x[None], time=at(share)))
    *states, logits = by_loops(model, x.tolist(), [model.places.tables[0][t] for t in range(6)], None)

    def surprise(outputs: Tensor, ahead: int) -> float:
        return -sum(float(outputs[t].log_softmax(0)[x[t + ahead]]) for t in range(6 - ahead))

    def said(head: torch.nn.Module, h: Tensor) -> Tensor:
        return torch.stack([head.module[1](norm(row, head.module[0])) for row in h])

    layers = 0.0
    for number in (1, 2, 3):
        if share < number / 8:
            outputs = said(model.early[number - 1], states[number - 1])
            layers += surprise(outputs[:, :5], 0) + 0.5 * surprise(outputs[:, 5:], 1)
    expected = {
        "nats": surprise(logits, 0),
        "layers": layers,
        "second": 0.5 * surprise(said(model.second, states[3]), 1),
    }
    for name, value in expected.items():
        assert float(terms[name]) == pytest.approx(value, rel=1e-9, abs=1e-12), name
    assert float(terms["loss"]) == pytest.approx(sum(expected.values()), rel=1e-9)


def test_each_term_moves_what_it_should() -> None:
    model = with_auxiliary()
    batch = Batch(torch.randint(5, (4, 6), generator=generator(1)))

    def moved(term: str, time: Time) -> set[str]:
        names, parameters = zip(*model.named_parameters(), strict=True)
        value = model.loss(Batch(batch.x, time=time))[term].mean()
        slopes = torch.autograd.grad(value, parameters, allow_unused=True)
        return {".".join(name.split(".")[:2]) for name, slope in zip(names, slopes, strict=True) if slope is not None}

    trunk = {"tokens.start", "tokens.weight", "places.tables"}
    blocks = [f"blocks.{i}" for i in range(4)]
    assert moved("nats", at(0)) == {*trunk, *blocks, "head.module"}
    assert moved("second", at(0)) == {*trunk, *blocks, "second.module"}
    assert moved("layers", at(0)) == {*trunk, *blocks[:3], "early.0", "early.1", "early.2"}
    assert moved("layers", at(0.2)) == {*trunk, *blocks[:3], "early.1", "early.2"}
    assert moved("loss", at(0.6)) == {*trunk, *blocks, "head.module", "second.module"}


def test_auxiliary_losses_are_in_no_likelihood() -> None:
    model, batch = with_auxiliary(), Batch(torch.randint(5, (4, 6), generator=generator(1)))
    trained = model.loss(batch)
    exact = model.log_prob(batch.x)
    torch.testing.assert_close(trained["nats"], -exact)
    assert (trained["loss"] > trained["nats"] + 1).all()
    model.eval()
    assert set(model.loss(batch)) == {"loss"}
    torch.testing.assert_close(model.loss(batch)["loss"], -exact)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.startswith(("early", "second")):
                p.normal_()
    assert torch.equal(model.log_prob(batch.x), exact)


def test_auxiliary_losses_count_no_padding() -> None:
    model = random_model("transformer", text(6, open=True), layers=3, auxiliary=True).train()
    x = torch.randint(5, (3, 6), generator=generator(1))
    lengths = torch.tensor([6, 3, 0])
    other = torch.where(torch.arange(6) < lengths[:, None], x, 4 - x)
    one, two = (model.loss(Batch(values, lengths=lengths)) for values in (x, other))
    for name, term in one.items():
        torch.testing.assert_close(term, two[name])
    # The second target of an empty text would be after its end, that of a text of 3 entries includes the end.
    assert one["second"][2].item() == 0
    assert (one["second"][:2] > 0).all()


def test_auxiliary_losses_train_a_model() -> None:
    model = unsup.create("transformer", text(12, 4), preset="tiny", auxiliary=True)
    x = torch.arange(12).remainder(4).repeat(16, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(60):
        loss = model.loss(Batch(x, time=Time(step, 60)))["loss"].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert -model.eval().log_prob(x[:1]).item() < 0.3
