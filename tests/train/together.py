"""What the tests of several processes run in each of them: short runs of tiny models, in float64.

The processes are copies of one that has imported everything, with the environment that torchrun would give them.
With plain gradient descent the parameters after a step are the gradient, so comparing them compares gradients.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch

from unsup.core.batch import Batch
from unsup.core.model import HasDensity, IsConditional, LearnsByCounting, keyed_generator
from unsup.core.parallel import process_count
from unsup.core.process import leave
from unsup.core.registry import names, row
from unsup.core.storage import save_tensors
from unsup.data.source import Data, Split
from unsup.evaluate.likelihood import log_probs
from unsup.testing.cases import Case, law_cases
from unsup.testing.subject import perturb
from unsup.train import parallel
from unsup.train.trainer import fit

STEPS = 2


def data_of(case: Case) -> Data:
    """The examples of a law case as all three splits."""
    split, model = split_of(case.data()), case.build()
    given = model.given if isinstance(model, IsConditional) else None
    return Data(None, case.event, split, split, split, given=given)


def split_of(batch: Batch) -> Split:
    beside = {name: getattr(batch, name) for name in ("label", "given", "lengths", "weight")}
    return Split(batch.x, **beside, streams={name: split_of(other) for name, other in batch.streams.items()})


def outcome(case: Case, *, shard: bool = False, batch_size: int = 16) -> dict[str, torch.Tensor]:
    """Losses of each step, parameters and buffers after the last, and scores, of one case."""
    model, data = case.build().double(), data_of(case)
    counts = isinstance(model, LearnsByCounting) and model.passes > 0
    if not counts:  # at the initial parameters some activations sit within rounding of a kink
        perturb(model, keyed_generator(0))
    rates: dict[str, Any] = {}
    if not counts:
        rates = {"steps": STEPS, "optimizer": "sgd", "lr": 1e-2, "betas": (0.0, 0.99), "schedule": "constant"}
        rates |= {"batch_size": batch_size, "precision": "float32"}
    fitted = fit(model, data, ema=0, validator="newest", progress="off", shard=shard, **rates)
    state = parallel.whole(model.state_dict())
    # A fingerprint of the parameters changes with their last bit.
    found = {f"state.{k}": v for k, v in state.items() if not k.endswith("partition_of")}
    for i, event in enumerate(e for e in fitted.events if "loss" in e or any(k.endswith("/loss") for k in e)):
        found |= {f"step {i}.{k}": torch.tensor(v) for k, v in event.items() if k.endswith("loss")}
    if isinstance(model, HasDensity):
        found["scores"] = log_probs(model, data.test.take(torch.arange(len(data.test)).repeat(8)))
    return found


def all_cases() -> dict[str, Case]:
    own = (name for name in names() if row(name).target.startswith("unsup."))
    return {f"{name}-{i}": case for name in own for i, case in enumerate(law_cases(name))}


def work(out: Path, shard: bool, batch_size: int, keys: Sequence[str]) -> NoReturn:
    """What one of the processes does."""
    with parallel.process_group():
        assert process_count() > 1
        for key, case in all_cases().items():
            if key in keys:
                found = outcome(case, shard=shard, batch_size=batch_size)
                save_tensors(out / f"{key}.safetensors", found, {})
    leave(0)


def main(processes: int, out: Path, shard: bool, batch_size: int, keys: Sequence[str]) -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    os.environ.update(WORLD_SIZE=str(processes), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    started = []
    for rank in range(processes):
        child = os.fork()
        if not child:
            os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
            try:
                work(out, shard, batch_size, keys)
            finally:
                traceback.print_exc()
                os._exit(1)
        started.append(child)
    left = set(started)
    while left:
        child, status = os.wait()
        left.remove(child)
        if status:  # the others would wait for it
            for other in left:
                os.kill(other, signal.SIGKILL)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "shard", int(sys.argv[4]), sys.argv[5:]))
