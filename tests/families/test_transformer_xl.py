"""Transformer-XL against the paper's loop over segments with a memory, and its receptive field."""

from __future__ import annotations

import math

import pytest
import torch
from decoders import norm, text
from entry_models import generator, random_model, seen_by_jacobian
from torch import Tensor

import unsup
from unsup.core.batch import Batch
from unsup.core.errors import InputError
from unsup.core.event import Event, Support
from unsup.families.autoregressive.transformer_xl import TransformerXL
from unsup.nn.relative_attention import RelativeAttention, sinusoids

Xl = dict[str, object]


def attention(layer: RelativeAttention, h: Tensor, memory: Tensor, clamp: int | None) -> Tensor:
    """One segment ``(S, width)`` after its memory ``(M, width)``, each score by itself."""
    both = torch.cat([memory, h])
    query, key, value = layer.queries_keys_values.weight.chunk(3, 0)
    d = h.shape[1] // layer.heads
    found = torch.zeros_like(h)
    for i in range(len(h)):
        place = len(memory) + i
        distance = torch.arange(place, -1, -1).clamp(max=clamp or place)
        r = sinusoids(distance, h.shape[1], h) @ layer.distances.weight.T
        for head in range(layer.heads):
            own = slice(head * d, (head + 1) * d)
            q, keys = query[own] @ h[i], both[: place + 1] @ key[own].T
            content = keys @ (q + layer.content_bias[head])
            scores = (content + r[:, own] @ (q + layer.distance_bias[head])) / math.sqrt(d)
            found[i, own] = scores.softmax(0) @ (both[: place + 1] @ value[own].T)
    return found @ layer.out.weight.T


def in_chunks(model: TransformerXL, x: Tensor, segment: int, length: int, clamp: int | None = None) -> Tensor:
    """Logits ``(n, P)`` of one example, segment by segment; each layer stores its last ``length`` inputs."""
    inputs = torch.stack([model.tokens.start, *model.tokens.weight[x[:-1]]]) * math.sqrt(model.tokens.weight.shape[1])
    memories = [inputs[:0] for _ in model.blocks]
    logits = []
    for h in inputs.split(segment):
        for number, block in enumerate(model.blocks):
            memory = memories[number]
            memories[number] = torch.cat([memory, h])[-length:] if length else memory
            h = h + attention(block.attention, h, memory, clamp)
            h = torch.stack([norm(row, block.first) for row in h])
            h = h + block.leave(block.enter(h).relu())
            h = torch.stack([norm(row, block.second) for row in h])
        logits.append(model.head.module(h))
    return torch.cat(logits)


@pytest.mark.parametrize(
    ("options", "length", "clamp"),
    [
        ({"segment": 3, "memory": 2}, 2, None),
        ({"segment": 4, "memory": 9}, 9, None),
        ({"segment": 3, "memory": 0}, 0, None),
        ({"segment": 3, "memory": 1, "eval_memory": 5, "clamp": 2}, 5, 2),
    ],
    ids=str,
)
@torch.no_grad()
def test_a_full_pass_is_the_papers_loop_over_segments(options: Xl, length: int, clamp: int | None) -> None:
    model = random_model("transformer-xl", text(11), layers=3, **options)
    assert isinstance(model, TransformerXL)
    x = torch.randint(5, (11,), generator=generator(1))
    expected = in_chunks(model, x, int(options["segment"]), length, clamp)
    torch.testing.assert_close(model.conditionals(x[None])[0], expected, rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_chunks_with_enough_memory_are_one_full_pass() -> None:
    x = torch.randint(5, (3, 13), generator=generator(1))
    whole = random_model("transformer-xl", text(13), segment=13, memory=0).log_conditionals(x)
    for segment in (1, 4, 13, 40):
        model = random_model("transformer-xl", text(13), segment=segment, memory=13)
        torch.testing.assert_close(model.log_conditionals(x), whole, rtol=1e-11, atol=1e-11)
    model = random_model("transformer-xl", text(13), segment=5, memory=1, eval_memory=13, same_length=True)
    torch.testing.assert_close(model.log_conditionals(x), whole, rtol=1e-11, atol=1e-11)
    short = random_model("transformer-xl", text(13), segment=4, memory=4)
    assert not torch.allclose(short.log_conditionals(x)[:, 9:], whole[:, 9:])


@torch.no_grad()
def test_without_memory_segments_do_not_see_each_other() -> None:
    model = random_model("transformer-xl", text(12), segment=4, memory=0, layers=3)
    x = torch.randint(5, (1, 12), generator=generator(1))
    parts = random_model("transformer-xl", text(12), segment=12, memory=0, layers=3)
    whole = model.conditionals(x)[0]
    torch.testing.assert_close(whole[:4], parts.conditionals(x)[0, :4], rtol=1e-11, atol=1e-11)
    changed = x.clone()  # the first segment has the entries 0, 1, 2 as its inputs, after the start
    changed[0, :3] = (x[0, :3] + 1) % 5
    moved = (model.conditionals(changed)[0] != whole).any(1)
    assert moved.tolist() == [False, True, True, True] + [False] * 8


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("same_length", [False, True])
def test_the_receptive_field_grows_with_each_layer(layers: int, same_length: bool) -> None:
    n, segment, memory = 16, 4, 3
    model = random_model(
        "transformer-xl", text(n), layers=layers, segment=segment, memory=memory, same_length=same_length
    )
    seen = torch.zeros(n, n, dtype=torch.bool)
    for t in range(n):
        first = t
        for _ in range(layers):
            first = max(0, first - memory + 1 if same_length else first - first % segment - memory)
        seen[t, max(0, first - 1) : t] = True  # the input of site s is entry s − 1
    assert torch.equal(model.blind_spot(), torch.ones(n, n, dtype=torch.bool).tril(-1) & ~seen)
    assert torch.equal(seen_by_jacobian(model, draws=8), seen)


def test_memory_of_evaluation_is_not_that_of_training() -> None:
    options = {"segment": 3, "memory": 1, "eval_memory": 6, "clamp": 2}
    model = random_model("transformer-xl", text(12), **options)
    plain = random_model("transformer-xl", text(12), segment=3, memory=1)
    x = torch.randint(5, (3, 12), generator=generator(1))
    torch.testing.assert_close(model.train().loss(Batch(x))["loss"], plain.train().loss(Batch(x))["loss"])
    assert not torch.isclose(model.eval().loss(Batch(x))["loss"], plain.eval().loss(Batch(x))["loss"]).any()
    for mode in (True, False):
        model.train(mode)
        fast, slow = (draw(8, generator=generator(2)) for draw in (model.sample, model.sample_naive))
        assert torch.equal(fast, slow)


def test_gradients_stop_at_the_memory_of_each_layer() -> None:
    """The loss of a late segment trains the embeddings of its own inputs only, though it depends on earlier ones."""
    model = random_model("transformer-xl", text(9, 9), segment=3, memory=6, layers=2)
    x = torch.arange(9)[None]
    for mode in (True, False):
        late = model.train(mode).log_conditionals(x)[0, 6:].sum()
        (slope,) = torch.autograd.grad(late, model.tokens.weight)
        moved = (slope != 0).any(1).tolist()  # entry s − 1 is the input of site s
        assert moved == [not mode] * 5 + [True] * 3 + [False]


def test_same_length_needs_a_memory() -> None:
    with pytest.raises(InputError, match="set memory or eval_memory"):
        unsup.create("transformer-xl", text(4), memory=0, same_length=True)
    assert unsup.create("transformer-xl", text(4), memory=0, eval_memory=2, same_length=True)


@pytest.mark.parametrize("layers", [2, 8])
def test_the_gradient_does_not_grow_with_depth(layers: int) -> None:
    """An input of zeros would be normalised to a gradient 300 times as large in every layer."""
    event = Event((32,), Support("nominal", 5), "sequence")
    model = unsup.create("transformer-xl", event, seed=0, width=32, layers=layers, heads=2, segment=8, memory=8)
    x = torch.randint(0, 5, (8, 32), generator=torch.Generator().manual_seed(1))
    model.loss(Batch(x))["loss"].mean().backward()
    norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
    assert norm < 100
