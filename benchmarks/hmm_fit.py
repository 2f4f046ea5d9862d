"""Passes of EM of hidden Markov models against hmmlearn, with the same data, sizes and number of passes."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from hmmlearn.hmm import CategoricalHMM, GaussianHMM
from torch import Tensor

import unsup
from benchmarks.harness import Measured, Several, interleave
from unsup.core.batch import Batch
from unsup.families.classical.hmm import HiddenMarkovModel

STATES, PASSES, LEVELS = 8, 5, 30


def hmm_fit() -> Several:
    logging.getLogger("hmmlearn").setLevel(logging.CRITICAL)
    return Several(
        [_fit(steps, sequences, real) for steps, sequences in ((100_000, 1), (100, 1000)) for real in (1, 0)]
    )


def _fit(steps: int, sequences: int, real: bool) -> Measured:
    generator = torch.Generator().manual_seed(0)
    shape = (sequences, steps)
    if real:
        x = torch.randn(*shape, 2, generator=generator) + torch.randint(4, (*shape, 1), generator=generator)
        event = unsup.Event((steps, 2), unsup.Support("real"), "sequence")
    else:
        x = torch.randint(LEVELS, shape, generator=generator)
        event = unsup.Event((steps,), unsup.Support("nominal", LEVELS), "sequence")
    model = unsup.create("hmm", event, seed=0, states=STATES, restarts=1)
    assert isinstance(model, HiddenMarkovModel)
    model.prepare(Batch(x), generator=generator)
    initial = {name: value.clone() for name, value in model.state_dict().items()}

    def ours() -> None:
        model.load_state_dict(initial)
        for _ in range(PASSES):
            model.maximize(model.statistics(Batch(x)))

    where = "one sequence" if sequences == 1 else f"{sequences:,} sequences"
    what = "2 real entries" if real else f"{LEVELS} symbols"
    return interleave(
        f"HMM of {STATES} states, {PASSES} passes over {where} of {steps:,} steps, {what}",
        ours,
        _others(x, real),
        rounds=3,
        target="≥ 3×",
        note="float64, passes only; hmmlearn's default is in log-space",
    )


def _others(x: Tensor, real: bool) -> Mapping[str, Callable[[], object]]:
    rows, lengths = x.reshape(-1, 2 if real else 1).double().numpy(), [x.shape[1]] * len(x)
    kind: Any = GaussianHMM if real else CategoricalHMM
    draw = np.random.default_rng(0).dirichlet

    def fit(implementation: str) -> Callable[[], object]:
        def run() -> None:
            peer = kind(STATES, n_iter=PASSES, tol=-1e9, init_params="", implementation=implementation)
            peer.startprob_, peer.transmat_ = draw(np.ones(STATES)), draw(np.ones(STATES), STATES)
            if real:
                peer.means_, peer.covars_ = rows[:STATES], np.ones((STATES, 2))
            else:
                peer.n_features, peer.emissionprob_ = LEVELS, draw(np.ones(LEVELS), STATES)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                peer.fit(rows if real else rows.astype(int), lengths)

        return run

    return {"hmmlearn": fit("log"), "hmmlearn, implementation='scaling'": fit("scaling")}
