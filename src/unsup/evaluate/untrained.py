"""A model as it is before the first step of training: the floor of every measure of codes.

An encoder with random parameters keeps much of its input, and a convolutional one has useful features before it has
learned anything. So the accuracy of a probe says what training has added only beside that of the same encoder with
random parameters (Saxe, Koh, Chen, Bhand, Suresh, Ng 2011, ICML).
"""

from __future__ import annotations

import torch

from unsup.core.model import Model, keyed_generator
from unsup.core.random import Rows, manual_seed
from unsup.data.source import Data

_MOST = 20_000
"""Training examples of the data-dependent initialisation."""
_PREPARE, _ROWS = 1, 4  # keys of random numbers, among those of the trainer
_PARAMETERS = 77


def prepare(model: Model, data: Data, *, seed: int = 0) -> None:
    """The data-dependent initialisation (`Model.prepare`) from training examples that the seed chooses, in place."""
    if type(model).prepare is Model.prepare:
        return
    train = data.train.epoch(seed, 0)
    rows = torch.randperm(len(train), generator=keyed_generator(seed, _ROWS, 1))[:_MOST]
    generator = keyed_generator(seed, _PREPARE, device=model.device)
    with torch.no_grad():
        part = Rows(len(rows), 0, len(rows))
        batch = train.step(rows, model.streams, seed=seed, position=0, part=part)
        model.prepare(batch.to(model.device), generator=generator)


def untrained(model: Model, data: Data, *, seed: int = 0) -> Model:
    """A model of the same class and options with random parameters, prepared on ``data`` as by `unsup.fit`.

    Its seed is derived from ``seed``, so that they are not the initial parameters of a run with that seed.

    >>> import unsup
    >>> data = unsup.load_data("digits")
    >>> model = unsup.create("vae", data.event, preset="tiny", seed=0)
    >>> fresh = untrained(model, data)
    >>> type(fresh) is type(model), bool((next(fresh.parameters()) == next(model.parameters())).all())
    (True, False)
    """
    own = keyed_generator(seed, _PARAMETERS).initial_seed() % 2**31
    with torch.random.fork_rng(devices=[]):
        manual_seed(torch.default_generator, own)
        fresh = type(model)(model.event, **model.config).to(model.device)
        prepare(fresh, data, seed=own)
    return fresh.eval()
