"""RealNVP on vectors against zuko, nflows and normflows: one training step, and sampling, in one interleaved run.

All have 43 dimensions, 5 affine couplings with a 2 × 256 ReLU net each, batch 512 and fused Adam.
"""

from __future__ import annotations

from collections.abc import Callable

import nflows.distributions
import nflows.flows
import nflows.nn.nets
import nflows.transforms
import normflows
import torch
import zuko
from torch import Tensor, nn

from benchmarks.harness import Measured, as_fit, interleave, training_step
from unsup.core.batch import Batch
from unsup.core.event import Event, Support
from unsup.families.flows.realnvp import RealNVP

DIMS, LAYERS, HIDDEN, BATCH = 43, 5, (256, 256), 512
ROUNDS, WARM_UP = 60, 10

Step = Callable[[], object]


def ours(x: Tensor) -> tuple[nn.Module, Step, Step]:
    model = RealNVP(Event((DIMS,), Support("real")), layers=LAYERS, hidden=HIDDEN)
    return model, lambda: model.loss(Batch(x))["loss"].mean(), lambda: model.sample(BATCH)


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


def _build() -> tuple[dict[str, Step], dict[str, Step]]:
    """A training step and a draw of each library, from one seed."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(BATCH, DIMS, generator=generator)
    train: dict[str, Step] = {}
    sample: dict[str, Step] = {}
    for name, build in {"ours": ours, "zuko": from_zuko, "nflows": from_nflows, "normflows": from_normflows}.items():
        model, loss, draw = build(x)
        train[name] = training_step(torch.optim.Adam(model.parameters(), lr=1e-4, fused=True), loss)
        sample[name] = torch.no_grad()(draw)
    return train, sample


def realnvp_training() -> Measured:
    """The same arithmetic for all: PyTorch's default kernels."""
    train, _ = _build()
    step = train.pop("ours")
    note = "43 dimensions, 5 × (256, 256), batch 512, fused Adam"
    return interleave("RealNVP training step", step, train, rounds=ROUNDS, target="≥ 1×", note=note, warmup=WARM_UP)


def realnvp_training_as_fit() -> Measured:
    """The step as `unsup.fit` runs it, with the faster float32 kernels where they keep float32's digits."""
    train, _ = _build()
    step = as_fit(train.pop("ours"))
    note = "as above, ours with the kernels that `unsup.fit` chooses"
    return interleave(
        "RealNVP step in `unsup.fit`", step, train, rounds=ROUNDS, target="≥ 1×", note=note, warmup=WARM_UP
    )


def realnvp_sampling() -> Measured:
    _, sample = _build()
    draw = sample.pop("ours")
    note = "512 samples of the same flows"
    return interleave("RealNVP sampling", draw, sample, rounds=ROUNDS, target="≥ 1×", note=note, warmup=WARM_UP)
