"""log Z of a `dbn` from both sides: ``python -m benchmarks partition RUN [EFFORT …]``.

Annealed importance sampling from independent units to the top RBM gives a log Z that is low on average, and in the
other direction, from samples of that RBM, one that is high on average (Grosse, Ghahramani, Adams 2015,
https://arxiv.org/abs/1511.02543). Samples are states of `SWEEPS` Gibbs sweeps from the persistent chains, so that the
upper one holds as far as these chains mix. Two paths are compared: straight, and through the RBM below the top one
(not after the up-down algorithm).
"""

from __future__ import annotations

import sys
import time

import torch

import unsup
from unsup.families.energy.dbn import DBN
from unsup.prob.annealing import anneal, log_mean_and_error
from unsup.prob.boltzmann import CHAINS, TEMPERATURES, annealed_log_partition, annealing_path

SWEEPS = 5000
EFFORTS = (2, 10)


def main(arguments: list[str]) -> None:
    """Print the estimates of both paths and directions for each effort."""
    if not arguments:
        raise SystemExit("no run given; use python -m benchmarks partition RUN [EFFORT …]")
    model = unsup.load(arguments[0])
    if not isinstance(model, DBN):
        raise SystemExit(f"{arguments[0]} is a run of {type(model).__name__}; expected one of dbn")
    efforts = [int(word) for word in arguments[1:]] or EFFORTS
    for effort in efforts:
        for through in (False, True) if model.below_top() else (False,):
            started = time.perf_counter()
            (low, low_error), (high, high_error) = both_sides(model, effort, through=through)
            sys.stdout.write(
                f"effort {effort:3}  {'through the RBM below' if through else 'straight':21}  "
                f"from below {low:,.1f} ± {low_error:.1f}  from above {high:,.1f} ± {high_error:.1f}  "
                f"{time.perf_counter() - started:.0f} s\n"
            )
            sys.stdout.flush()


@torch.no_grad()
def both_sides(model: DBN, effort: int, *, through: bool) -> tuple[tuple[float, float], tuple[float, float]]:
    """The estimates of log Z by annealing forwards and backwards, each with the standard error of its mean weight."""
    top, below = model.layers[model.depth - 1], model.below_top() if through else None
    seeds = (torch.Generator().manual_seed(seed) for seed in range(3))
    low = annealed_log_partition(top.interaction(), top.base_bias, effort, next(seeds), through=below)
    path = annealing_path(top.interaction(), top.base_bias, TEMPERATURES * effort, through=below)
    start = top.drawn(CHAINS, SWEEPS, next(seeds))
    mean, error = log_mean_and_error(anneal(start, path.betas[::-1], path.step, generator=next(seeds)))
    return low, (path.offset - mean, error)


if __name__ == "__main__":
    main(sys.argv[1:])
