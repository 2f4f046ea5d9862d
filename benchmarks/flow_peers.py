"""Flows on vectors against zuko, nflows and normflows: training step, log_prob and samples, interleaved in one run.

All have 43 dimensions, 5 steps and batch 512. Networks of `maf` have hidden layers (256, 256). Those of `spline-flow`
have a layer of 256 units and one residual block, which is two layers of 256, and 8 bins in [−3, 3]; zuko has no
residual block of this form, and gets the same matrices in a chain. Linear maps mix the entries between spline steps;
zuko is also timed as it comes, without them. Notes state the parameter counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import nflows.distributions
import nflows.flows
import nflows.nn.nets
import nflows.transforms
import normflows
import torch
import zuko
from torch import Tensor, nn

from benchmarks.harness import Measured, Several, as_fit, interleave, training_step
from unsup.core.batch import Batch
from unsup.core.event import Event, Support
from unsup.core.model import Model
from unsup.families.flows.maf import MAF
from unsup.families.flows.spline_flow import SplineFlow

DIMS, LAYERS, WIDTH, BINS, BOUND, BATCH = 43, 5, 256, 8, 3.0, 512
ROUNDS, WARM_UP, SAMPLING_ROUNDS = 30, 4, 6

Step = Literal["coupling", "autoregressive"]
Work = Callable[[], object]


@dataclass(frozen=True)
class Peer:
    """One library's flow.

    Attributes:
        model: its parameters.
        log_prob: of the batch.
        sample: of as many examples as the batch has.
    """

    model: nn.Module
    log_prob: Callable[[], Tensor]
    sample: Work

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())


def _ours(model: Model, x: Tensor) -> Peer:
    batch = Batch(x)
    return Peer(model, lambda: -model.loss(batch)["loss"], lambda: model.sample(BATCH))  # type: ignore[attr-defined]


def _zuko(flow: zuko.flows.Flow, x: Tensor) -> Peer:
    return Peer(flow, lambda: flow().log_prob(x), lambda: flow().sample((BATCH,)))


def _nflows(transforms: list[nn.Module], x: Tensor) -> Peer:
    base = nflows.distributions.StandardNormal([DIMS])
    flow = nflows.flows.Flow(nflows.transforms.CompositeTransform(transforms), base)
    return Peer(flow, lambda: flow.log_prob(x), lambda: flow.sample(BATCH))


def _normflows(flows: list[nn.Module], x: Tensor) -> Peer:
    flow = normflows.NormalizingFlow(normflows.distributions.DiagGaussian(DIMS, trainable=False), flows)
    return Peer(flow, lambda: flow.log_prob(x), lambda: flow.sample(BATCH))


def _mafs(x: Tensor) -> dict[str, Peer]:
    ours = MAF(Event((DIMS,), Support("real")), layers=LAYERS, hidden=(WIDTH, WIDTH))
    affine = nflows.transforms.MaskedAffineAutoregressiveTransform
    by_nflows: list[nn.Module] = []
    by_normflows: list[nn.Module] = []
    for _ in range(LAYERS):
        by_nflows += [affine(DIMS, WIDTH, num_blocks=1, use_residual_blocks=False)]
        by_nflows += [nflows.transforms.ReversePermutation(DIMS)]
        # Its class is the inverse: the pass that scores is the one entry by entry.
        step = normflows.flows.MaskedAffineAutoregressive(DIMS, WIDTH, num_blocks=1, use_residual_blocks=False)
        by_normflows += [normflows.flows.Permute(DIMS, mode="swap"), normflows.flows.base.Reverse(step)]
    return {
        "ours": _ours(ours, x),
        "zuko": _zuko(zuko.flows.MAF(DIMS, transforms=LAYERS, hidden_features=(WIDTH, WIDTH)), x),
        "nflows": _nflows(by_nflows, x),
        "normflows": _normflows(by_normflows, x),
    }


def _splines(step: Step, x: Tensor) -> dict[str, Peer]:
    event = Event((DIMS,), Support("real"))
    ours = SplineFlow(event, step=step, layers=LAYERS, width=WIDTH, blocks=1, bins=BINS, bound=BOUND)
    return {
        "ours": _ours(ours, x),
        "zuko": _zuko(_zuko_spline(step, mixing=True), x),
        "zuko without linear maps": _zuko(_zuko_spline(step, mixing=False), x),
        "nflows": _nflows(_nflows_spline(step), x),
        "normflows": _normflows(_normflows_spline(step), x),
    }


def _zuko_spline(step: Step, *, mixing: bool) -> zuko.flows.Flow:
    flow = zuko.flows.NSF(DIMS, bins=BINS, transforms=LAYERS, hidden_features=(WIDTH,) * 3)
    transforms = list(flow.transform.transforms)
    if step == "coupling":
        shapes, spline = [(BINS,), (BINS,), (BINS - 1,)], zuko.transforms.MonotonicRQSTransform
        masks = [(torch.arange(DIMS) + layer) % 2 == 1 for layer in range(LAYERS)]
        net = {"univariate": spline, "shapes": shapes, "hidden_features": (WIDTH,) * 3}
        transforms = [zuko.flows.coupling.GeneralCouplingTransform(DIMS, 0, mask, **net) for mask in masks]
    if not mixing:
        return zuko.flows.Flow(transforms, flow.base)

    def linear() -> nn.Module:
        return zuko.lazy.UnconditionalTransform(zuko.transforms.LULinearTransform, torch.eye(DIMS))

    steps = [linear()]
    for transform in transforms:
        steps += [transform, linear()]
    return zuko.flows.Flow(steps, flow.base)


def _nflows_spline(step: Step) -> list[nn.Module]:
    def mixing() -> list[nn.Module]:
        return [nflows.transforms.RandomPermutation(DIMS), nflows.transforms.LULinear(DIMS, identity_init=True)]

    def net(inputs: int, outputs: int) -> nn.Module:
        return nflows.nn.nets.ResidualNet(inputs, outputs, WIDTH, num_blocks=1)

    def spline(layer: int) -> nn.Module:
        settings = {"num_bins": BINS, "tails": "linear", "tail_bound": BOUND}
        if step == "autoregressive":
            autoregressive = nflows.transforms.MaskedPiecewiseRationalQuadraticAutoregressiveTransform
            return autoregressive(DIMS, WIDTH, num_blocks=1, **settings)
        mask = (torch.arange(DIMS) % 2 * 2 - 1) * (-1) ** layer
        return nflows.transforms.PiecewiseRationalQuadraticCouplingTransform(mask, net, **settings)

    return [*(t for layer in range(LAYERS) for t in (*mixing(), spline(layer))), *mixing()]


def _normflows_spline(step: Step) -> list[nn.Module]:
    flows: list[nn.Module] = [normflows.flows.LULinearPermute(DIMS)]
    for layer in range(LAYERS):
        if step == "autoregressive":
            flows.append(
                normflows.flows.AutoregressiveRationalQuadraticSpline(DIMS, 1, WIDTH, num_bins=BINS, tail_bound=BOUND)
            )
        else:
            flows.append(
                normflows.flows.CoupledRationalQuadraticSpline(
                    DIMS, 1, WIDTH, num_bins=BINS, tail_bound=BOUND, reverse_mask=layer % 2 == 1
                )
            )
        flows.append(normflows.flows.LULinearPermute(DIMS))
    return flows


def _trained(peer: Peer) -> Work:
    optimizer = torch.optim.Adam(peer.model.parameters(), lr=1e-4, fused=True)
    return training_step(optimizer, lambda: -peer.log_prob().mean())


def _measured(name: str, peers: Mapping[str, Peer], *, promised: tuple[str, str], rounds: int = ROUNDS) -> Several:
    """Training steps, scores and samples of each library's flow; ``promised`` for the first two and for samples."""
    others = {f"{k}, {p.parameters:,} parameters": p for k, p in peers.items() if k != "ours"}
    ours = peers["ours"]
    size = f"{DIMS} dimensions, {LAYERS} steps, 2 × {WIDTH}, batch {BATCH}; ours {ours.parameters:,} parameters"

    def row(what: str, way: Callable[[Peer], Work], target: str, count: int, *, fit: bool = False) -> Measured:
        note = f"{size}; ours with the kernels that `unsup.fit` chooses" if fit else size
        mine = as_fit(way(ours)) if fit else way(ours)
        return interleave(
            f"{name} {what}",
            mine,
            {k: way(p) for k, p in others.items()},
            rounds=count,
            target=target,
            note=note,
            warmup=WARM_UP if count == ROUNDS else 1,
        )

    def scores(peer: Peer) -> Work:
        return torch.no_grad()(peer.log_prob)

    def samples(peer: Peer) -> Work:
        return torch.no_grad()(peer.sample)

    return Several(
        [
            row("training step", _trained, promised[0], rounds),
            row("step in `unsup.fit`", _trained, promised[0], rounds, fit=True),
            row("log_prob", scores, promised[0], rounds),
            row("sampling", samples, promised[1], min(rounds, SAMPLING_ROUNDS)),
        ]
    )


def _batch() -> Tensor:
    return torch.randn(BATCH, DIMS, generator=torch.Generator().manual_seed(0))


def maf_peers() -> Several:
    return _measured("MAF", _mafs(_batch()), promised=("≥ 1×", "≥ 10×"))


def spline_coupling_peers() -> Several:
    return _measured("Spline flow, coupling,", _splines("coupling", _batch()), promised=("≥ 2×", ""))


def spline_autoregressive_peers() -> Several:
    return _measured("Spline flow, autoregressive,", _splines("autoregressive", _batch()), promised=("≥ 2×", "≥ 10×"))
