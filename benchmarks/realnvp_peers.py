"""RealNVP on vectors against zuko, nflows and normflows: one training step, and sampling, in one interleaved run.

All have 43 dimensions, 5 affine couplings with a 2 × 256 ReLU net each, batch 512 and fused Adam. Run with
``python benchmarks/realnvp_peers.py`` (extra ``bench``); ``OMP_NUM_THREADS`` sets the threads.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable

import nflows.distributions
import nflows.flows
import nflows.nn.nets
import nflows.transforms
import normflows
import torch
import zuko
from torch import Tensor, nn

from unsup.core.batch import Batch
from unsup.core.event import Event, Support
from unsup.families.flows.realnvp import RealNVP

DIMS, LAYERS, HIDDEN, BATCH = 43, 5, (256, 256), 512
ROUNDS, WARM_UP = 60, 10

Step = Callable[[], object]


def ours(x: Tensor) -> tuple[nn.Module, Step, Step]:
    model = RealNVP(Event((DIMS,), Support("real")), layers=LAYERS, hidden=HIDDEN)
    return model, lambda: model.loss(Batch(x))["loss"], lambda: model.sample(BATCH)


def from_zuko(x: Tensor) -> tuple[nn.Module, Step, Step]:
    flow = zuko.flows.RealNVP(DIMS, transforms=LAYERS, hidden_features=HIDDEN)
    return flow, lambda: -flow().log_prob(x).mean(), lambda: flow().sample((BATCH,))


def from_nflows(x: Tensor) -> tuple[nn.Module, Step, Step]:
    class Net(nflows.nn.nets.MLP):
        """Its couplings pass a context, which its own MLP does not take."""

        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__((inputs,), (outputs,), list(HIDDEN), activation=torch.relu)

        def forward(self, inputs: Tensor, context: Tensor | None) -> Tensor:
            return super().forward(inputs)

    mask = torch.arange(DIMS) % 2 * 2 - 1
    transforms = [nflows.transforms.AffineCouplingTransform(mask * (-1) ** i, Net) for i in range(LAYERS)]
    base = nflows.distributions.StandardNormal([DIMS])
    flow = nflows.flows.Flow(nflows.transforms.CompositeTransform(transforms), base)
    return flow, lambda: -flow.log_prob(x).mean(), lambda: flow.sample(BATCH)


def from_normflows(x: Tensor) -> tuple[nn.Module, Step, Step]:
    flows: list[nn.Module] = []
    for _ in range(LAYERS):
        seen = DIMS - DIMS // 2
        net = normflows.nets.MLP([seen, *HIDDEN, 2 * (DIMS - seen)], init_zeros=True)
        flows += [normflows.flows.AffineCouplingBlock(net), normflows.flows.Permute(DIMS, mode="swap")]
    flow = normflows.NormalizingFlow(normflows.distributions.DiagGaussian(DIMS, trainable=False), flows)
    return flow, lambda: flow.forward_kld(x), lambda: flow.sample(BATCH)


def main() -> None:
    torch.manual_seed(0)
    x = torch.randn(BATCH, DIMS)
    peers = {"unsup": ours, "zuko": from_zuko, "nflows": from_nflows, "normflows": from_normflows}
    train: dict[str, Step] = {}
    sample: dict[str, Step] = {}
    sizes: dict[str, int] = {}
    for name, build in peers.items():
        model, loss, draw = build(x)
        sizes[name] = sum(p.numel() for p in model.parameters())
        train[name] = training_step(model, loss)
        sample[name] = torch.no_grad()(draw)
    report = {"threads": torch.get_num_threads(), "parameters": sizes}
    for what, steps in (("train", train), ("sample", sample)):
        seconds = interleaved(steps)
        fastest = min(v for k, v in seconds.items() if k != "unsup")
        report[what] = {
            "median_ms": {k: round(1e3 * v, 3) for k, v in seconds.items()},
            "fastest_peer_over_unsup": round(fastest / seconds["unsup"], 3),
        }
    print(json.dumps(report, indent=2))


def training_step(model: nn.Module, loss: Step) -> Step:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return step


def interleaved(steps: dict[str, Step]) -> dict[str, float]:
    """Median seconds of each, taking turns in every round so that the machine's moods fall on all alike."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for round_number in range(WARM_UP + ROUNDS):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if round_number >= WARM_UP:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(t) for name, t in times.items()}


if __name__ == "__main__":
    main()
