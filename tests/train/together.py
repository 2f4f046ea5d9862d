"""What the tests of several processes run in each of them: short runs of tiny models, in float64.

With plain gradient descent the parameters after a step are the gradient, so comparing them compares gradients.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from unsup.core.model import LearnsByCounting, keyed_generator
from unsup.core.parallel import process_count
from unsup.core.registry import names
from unsup.core.storage import save_tensors
from unsup.data.source import Data, Split
from unsup.evaluate.likelihood import log_probs
from unsup.testing.cases import Case, law_cases
from unsup.testing.subject import perturb
from unsup.train import parallel
from unsup.train.trainer import fit

STEPS = 2


def data_of(case: Case) -> Data:
    batch = case.data()
    fields = {k: v for k, v in vars(batch).items() if k in Split.__dataclass_fields__}
    split = Split(**fields)
    return Data(None, case.event, split, split, split)


def outcome(case: Case, *, shard: bool = False) -> dict[str, torch.Tensor]:
    """Losses of each step, parameters and buffers after the last, and scores, of one case."""
    model, data = case.build().double(), data_of(case)
    counts = isinstance(model, LearnsByCounting) and model.passes > 0
    if not counts:  # at the initial parameters some activations sit within rounding of a kink
        perturb(model, keyed_generator(0))
    rates = (
        {} if counts else {"steps": STEPS, "optimizer": "sgd", "lr": 1e-2, "betas": (0.0, 0.99), "schedule": "constant"}
    )
    fitted = fit(model, data, batch_size=16, ema=0, precision="float32", progress="off", shard=shard, **rates)
    state = parallel.whole(model.state_dict())
    # A fingerprint of the parameters changes with their last bit.
    found = {f"state.{k}": v for k, v in state.items() if not k.endswith("partition_of")}
    for i, event in enumerate(e for e in fitted.events if "loss" in e or any(k.endswith("/loss") for k in e)):
        found |= {f"step {i}.{k}": torch.tensor(v) for k, v in event.items() if k.endswith("loss")}
    if hasattr(model, "log_prob"):
        found["scores"] = log_probs(model, data.test.x.repeat(8, *(1,) * (data.test.x.ndim - 1)))
    return found


def all_cases() -> dict[str, Case]:
    from unsup.testing.cases import _CASES

    return {f"{name}-{i}": case for name in names() if name in _CASES for i, case in enumerate(law_cases(name))}


if __name__ == "__main__":
    out, shard = Path(sys.argv[1]), sys.argv[2] == "shard"
    with parallel.process_group():
        assert process_count() == 2
        for key, case in all_cases().items():
            if not shard or key in sys.argv[3:]:
                save_tensors(out / f"{key}.safetensors", outcome(case, shard=shard), {})
