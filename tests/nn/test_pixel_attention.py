"""Strictly causal attention: a loop, zeros without a key, stepping is the full pass."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from unsup.nn.pixel_attention import Past, strict_spread, strictly_causal_attention

N, KEYS, VALUES = 2, 3, 4


def inputs(length: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    noise = torch.Generator().manual_seed(length)
    sizes = (KEYS, KEYS, VALUES)
    return [(3 * torch.randn(N, length, size, generator=noise, dtype=torch.float64)).to(dtype) for size in sizes]


@pytest.mark.parametrize("length", [1, 2, 7])
def test_a_site_attends_to_the_sites_before_it_only(length: int) -> None:
    q, k, v = inputs(length)
    found = torch.zeros(N, length, VALUES, dtype=torch.float64)
    for b in range(N):
        for t in range(1, length):
            weights = [math.exp(float(q[b, t] @ k[b, j]) / math.sqrt(KEYS)) for j in range(t)]
            found[b, t] = sum(w * v[b, j] for j, w in enumerate(weights)) / sum(weights)
    torch.testing.assert_close(strictly_causal_attention(q, k, v), found, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("length", [1, 2, 7])
def test_stepping_is_the_full_pass(length: int) -> None:
    q, k, v = inputs(length)
    past = Past(torch.zeros_like(k), torch.zeros_like(v))
    found = []
    for t in range(length):
        found.append(past.look(q[:, t]))  # before the site's own key is known
        past.put(k[:, t], v[:, t])
    torch.testing.assert_close(torch.stack(found, 1), strictly_causal_attention(q, k, v), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_first_query_finds_zeros_and_gradients_are_finite(dtype: torch.dtype) -> None:
    q, k, v = (part.requires_grad_() for part in inputs(5, dtype))
    found = strictly_causal_attention(q, k, v)
    assert (found[:, 0] == 0).all()
    assert found.isfinite().all()
    for part, gradient in zip((q, k, v), torch.autograd.grad(found.square().sum(), (q, k, v)), strict=True):
        assert gradient.isfinite().all()
        unused = 0 if part is q else -1  # the first query has no key, and nobody attends to the last site
        assert (gradient[:, unused] == 0).all()


def test_spread_is_that_of_the_sites_before() -> None:
    seen = strict_spread(torch.eye(4))
    assert seen.tolist() == [[0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0]]
