"""An epoch of persistent contrastive divergence against scikit-learn's `BernoulliRBM` with as many chains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from numpy.typing import NDArray
from sklearn.neural_network import BernoulliRBM

import unsup
from benchmarks.harness import Measured, interleave
from unsup.core.batch import Batch
from unsup.core.machine import fast_cpu

EXAMPLES, BATCH, HIDDEN, LEARNING_RATE = 10_000, 100, 500, 0.01


def rbm_epoch() -> Measured:
    return _epoch("float32")


def rbm_epoch_bfloat16() -> Measured:
    """As with ``--precision bfloat16``: matrix products of bfloat16, all sums and probabilities in float32."""
    return _epoch("bfloat16")


def _epoch(precision: str) -> Measured:
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(EXAMPLES, 1, 28, 28, generator=generator) < 0.13).to(torch.uint8)
    event = unsup.Event((1, 28, 28), unsup.Support("binary"))
    model = unsup.create("rbm", event, hidden=HIDDEN, steps=1, chains=BATCH, centred=False)
    model.prepare(Batch(x), generator=generator)
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, fused=True)

    def ours() -> None:
        with fast_cpu(model.device):
            for rows in torch.randperm(EXAMPLES, generator=generator).split(BATCH):
                optimizer.zero_grad()
                with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                    loss = model.loss(Batch(x.index_select(0, rows)), generator=generator)["loss"].mean()
                loss.backward()
                optimizer.step()

    flat = x.flatten(1).float().numpy()

    def theirs(data: NDArray[Any]) -> Callable[[], object]:
        machine = BernoulliRBM(HIDDEN, learning_rate=LEARNING_RATE, batch_size=BATCH, n_iter=1, random_state=0)
        return lambda: machine.fit(data)

    return interleave(
        f"RBM-{HIDDEN} epoch of PCD-1, {EXAMPLES:,} examples, batch {BATCH}"
        + (", bfloat16 products" if precision == "bfloat16" else ""),
        ours,
        {
            "scikit-learn BernoulliRBM, float32": theirs(flat),
            "scikit-learn BernoulliRBM, integers (its float64)": theirs(x.flatten(1).numpy()),
        },
        rounds=7,
        target="≥ 3×",
        note=f"updates alone; ours {precision}; both sides are nearly all matrix products",
    )
