"""The sparse transformer: which entries it sees, in one layer and in two, and its places."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from decoders import text
from entry_models import generator, random_model, seen_by_jacobian

import unsup
from unsup.core.errors import InputError
from unsup.core.event import BINARY, Event, Support
from unsup.nn.decoder import linear_map


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize(("pattern", "stride", "summary"), [("strided", 4, 1), ("fixed", 4, 1), ("fixed", 5, 3)])
def test_blind_spot_is_that_of_the_sets_of_the_paper(layers: int, pattern: str, stride: int, summary: int) -> None:
    """Entry t is predicted at site t, where the inputs are the entries up to t − 1 as sites up to t."""
    n = 14
    options = {"layers": layers, "heads": 4, "pattern": pattern, "stride": stride, "summary": summary}
    model = random_model("sparse-transformer", text(n), **options)
    seen = torch.zeros(n, n, dtype=torch.bool)
    for t, site in itertools.product(range(n), range(1, n)):
        if site <= t:
            if pattern == "strided":
                direct = t - site <= stride or (t - site) % stride == 0
            else:  # the two heads of the second half see different columns
                heads = 2 if stride >= 2 * summary else 1
                direct = t // stride == site // stride or site % stride >= stride - heads * summary
            seen[t, site - 1] = direct or layers == 2  # the input of site s is entry s − 1
    earlier = torch.ones(n, n, dtype=torch.bool).tril(-1)
    assert torch.equal(model.blind_spot(), earlier & ~seen)
    assert bool(model.blind_spot().any()) is (layers == 1)
    assert torch.equal(seen_by_jacobian(model, draws=6), seen)


def test_initial_weights_are_those_of_the_paper() -> None:
    model = unsup.create("sparse-transformer", text(64), width=128, layers=3, heads=4)
    block = model.blocks[1]
    assert (linear_map(model.head).weight == 0).all()
    for weight, inputs, share in (
        (block.attention.queries_keys_values.weight, 128, 1),
        (model.tokens.weight, 128, 1),
        (block.net[0].weight, 128, 1),
        (block.net[2].weight, 512, 6),
        (block.attention.out.weight, 128, 6),
        *((table, 128, 2) for table in model.places.tables),
    ):
        assert float(weight.detach().std()) == pytest.approx(0.125 / math.sqrt(inputs * share), rel=0.1)


def test_default_stride_is_the_row_of_an_image_or_about_the_root() -> None:
    for event, stride in (
        (Event((3, 4, 5), Support("ordinal", 4)), 15),
        (text(100), 10),
        (text(101), 11),
        (text(1), 1),
        (Event((7,), BINARY), 3),
    ):
        assert unsup.create("sparse-transformer", event, preset="tiny").stride == stride


def test_texts_have_places_by_row_and_column() -> None:
    model = random_model("sparse-transformer", text(10), stride=4)
    rows, columns = model.places.tables
    assert (len(rows), len(columns)) == (3, 4)
    for t in range(10):
        assert torch.equal(model.places.places()[t], rows[t // 4] + columns[t % 4])
    image = random_model("sparse-transformer", Event((2, 3, 4), BINARY))
    assert [len(table) for table in image.places.tables] == [2, 3, 4]


def test_a_stride_of_all_entries_is_a_transformer_in_half_of_its_heads() -> None:
    """With ``fixed`` and c = l = n both halves see everything: the model is the transformer with the same weights."""
    sparse = random_model("sparse-transformer", text(9), pattern="fixed", stride=9, summary=9)
    dense = random_model("transformer", text(9))
    rows, columns = sparse.places.tables
    state = sparse.state_dict()
    state["places.tables.0"] = rows + columns
    dense.load_state_dict({k: v for k, v in state.items() if k != "places.tables.1"})
    x = torch.randint(5, (4, 9), generator=generator())
    torch.testing.assert_close(sparse.log_prob(x), dense.log_prob(x), rtol=1e-11, atol=0)


def test_half_size_halves_queries_keys_and_nets() -> None:
    model = unsup.create("sparse-transformer", text(9), width=16, half_size=True)
    for block in model.blocks:
        assert block.attention.queries_keys_values.weight.shape == (8 + 8 + 16, 16)
        assert block.net[0].weight.shape == (32, 16)


def test_refusals_name_the_limits() -> None:
    for options, match in (
        ({"stride": 9}, "stride=9 is more than the 8 entries"),
        ({"stride": 2, "summary": 3, "pattern": "fixed"}, "summary=3 columns are more than the stride=2"),
        ({"heads": 1}, "heads=1 is odd"),
    ):
        with pytest.raises(InputError, match=match):
            unsup.create("sparse-transformer", text(8), **options)
