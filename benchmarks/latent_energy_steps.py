"""Training steps of `vq-vae-2`, `latent`, `dbn` and `dbm` against plain scripts of the same arithmetic, in float32."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from sklearn.neural_network import BernoulliRBM
from sklearn.pipeline import make_pipeline
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot, relu

import unsup
from benchmarks.harness import Measured, interleave, training_step
from benchmarks.vq_vae_step import trainer_step
from unsup.core.batch import Batch
from unsup.core.machine import fast_cpu
from unsup.core.model import Objective
from unsup.families.energy.dbm import DBM
from unsup.families.energy.dbn import DBN

BATCH, HIDDEN, EXAMPLES, LEARNING_RATE = 100, 500, 2000, 0.01


def _digits() -> tuple[unsup.Event, Tensor]:
    noise = torch.rand(EXAMPLES, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    return unsup.Event((1, 28, 28), unsup.Support("binary")), (noise < 0.13).to(torch.uint8)


# --- vq-vae-2 ---------------------------------------------------------------------------------------------------------

SIZE, WIDTH, BLOCK, CODES, DIM = 32, 128, 64, 512, 64


def vq_vae_2_step() -> Measured:
    x = torch.randint(0, 256, (10 * SIZE, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    options = {"codebook_size": CODES, "code_dim": DIM, "width": WIDTH, "block_width": BLOCK, "stages": 2}
    net = _Plain2()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    plain = training_step(optimizer, lambda: net(x[torch.randint(0, len(x), (SIZE,))].float()))
    return interleave(
        f"VQ-VAE-2 on 3×32², one step, batch {SIZE}, float32",
        trainer_step(x, "float32", "vq-vae-2", options),
        {"plain PyTorch float32 script": plain},
        rounds=5,
        target="≥ 1×",
        note="the paper's nets, codebooks by moving averages, uniform priors",
    )


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(WIDTH, BLOCK, 3, padding=1), nn.Conv2d(BLOCK, WIDTH, 1)

    def forward(self, h: Tensor) -> Tensor:
        return h + self.second(relu(self.first(relu(h))))


class _Codebook(nn.Module):
    """Moving averages; multiplies by one-hot codes, as scripts commonly do."""

    codebook: Tensor
    usage: Tensor
    sums: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("codebook", torch.randn(CODES, DIM))
        self.register_buffer("usage", torch.ones(CODES))
        self.register_buffer("sums", self.codebook.clone())

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        z = maps.permute(0, 2, 3, 1)
        flat = z.reshape(-1, DIM)
        with torch.no_grad():
            distances = flat.square().sum(1, keepdim=True) - 2 * flat @ self.codebook.T + self.codebook.square().sum(1)
            codes = one_hot(distances.argmin(1), CODES).float()
            vectors = (codes @ self.codebook).view(z.shape)
            self.usage.mul_(0.99).add_(codes.sum(0), alpha=0.01)
            self.sums.mul_(0.99).add_(codes.T @ flat, alpha=0.01)
            self.codebook.copy_(self.sums / (self.usage + 1e-5)[:, None])
        commitment = (z - vectors).square().sum((1, 2, 3))
        return (z + (vectors - z).detach()).permute(0, 3, 1, 2), commitment


class _Plain2(nn.Module):
    def __init__(self) -> None:
        super().__init__()

        def down(inputs: int, stages: int, outputs: int) -> nn.Sequential:
            layers: list[nn.Module] = []
            for stage in range(stages):
                layers += [nn.ReLU()] if stage else []
                layers.append(nn.Conv2d(WIDTH if stage else inputs, WIDTH, 4, 2, 1))
            return nn.Sequential(*layers, _Block(), _Block(), nn.ReLU(), nn.Conv2d(WIDTH, outputs, 1))

        def up(inputs: int, stages: int, outputs: int) -> nn.Sequential:
            layers: list[nn.Module] = [nn.Conv2d(inputs, WIDTH, 1), _Block(), _Block()]
            for stage in reversed(range(stages)):
                layers += [nn.ReLU(), nn.ConvTranspose2d(WIDTH, WIDTH if stage else outputs, 4, 2, 1)]
            return nn.Sequential(*layers)

        self.encoder, self.decoder = down(3, 2, WIDTH), up(2 * DIM, 2, 6)
        self.top_encoder, self.top_decoder = down(WIDTH, 1, DIM), up(DIM, 1, WIDTH)
        self.bottom_encoder = nn.Conv2d(2 * WIDTH, DIM, 1)
        self.enlarge = nn.ConvTranspose2d(DIM, DIM, 4, 2, 1)
        self.top, self.bottom = _Codebook(), _Codebook()

    def forward(self, x: Tensor) -> Tensor:
        h = self.encoder(x / 127.5 - 1)
        top, first = self.top(self.top_encoder(h))
        bottom, second = self.bottom(self.bottom_encoder(torch.cat([h, self.top_decoder(top)], 1)))
        mean, log_scale = self.decoder(torch.cat([bottom, self.enlarge(top)], 1)).chunk(2, 1)
        edges = [((2 * x + e) / 256 - 1 - mean) * (-log_scale.clamp(min=-7)).exp() for e in (0, 2)]
        mass = (edges[1].sigmoid() - edges[0].sigmoid()).clamp(min=1e-12)
        return (0.25 * (first + second) - mass.log().sum((1, 2, 3))).mean()


# --- latent -----------------------------------------------------------------------------------------------------------


def latent_step() -> Measured:
    """The sigmoid belief network 200-200-784 with VIMCO of five draws."""
    event, x = _digits()
    net = _Belief()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    options: dict[str, Any] = {"layers": (200, 200), "hidden": (), "objective": "vimco", "samples": 5}
    return interleave(
        f"Sigmoid belief network 200-200-784, one step of VIMCO with 5 draws, batch {BATCH}, float32",
        trainer_step(x, "float32", "latent", options, event=event, batch=BATCH),
        {"plain PyTorch float32 script": _fast(training_step(optimizer, lambda: net(_rows(x))))},
        rounds=15,
        target="≥ 1×",
        note="both with the kernels that `unsup.fit` chooses",
    )


def _rows(x: Tensor) -> Tensor:
    return x[torch.randint(0, len(x), (BATCH,))].flatten(1).float()


def _fast(work: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        with fast_cpu(torch.device("cpu")):
            work()

    return run


class _Belief(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ModuleList([nn.Linear(784, 200), nn.Linear(200, 200)])
        self.down = nn.ModuleList([nn.Linear(200, 784), nn.Linear(200, 200)])
        self.prior = nn.Parameter(torch.zeros(200))

    def forward(self, x: Tensor, k: int = 5) -> Tensor:
        def log_p(bits: Tensor, logits: Tensor) -> Tensor:
            return -binary_cross_entropy_with_logits(logits.expand_as(bits), bits, reduction="none").sum(-1)

        first = self.up[0](x).expand(k, -1, -1)
        z1 = first.sigmoid().bernoulli()
        second = self.up[1](z1)
        z2 = second.sigmoid().bernoulli()
        log_q = log_p(z1, first) + log_p(z2, second)
        joint = log_p(z2, self.prior) + log_p(z1, self.down[1](z2)) + log_p(x.expand(k, -1, -1), self.down[0](z1))
        weight = (joint - log_q).detach()
        bound = weight.logsumexp(0) - math.log(k)
        own = torch.eye(k, dtype=torch.bool)[:, :, None]
        mean = (weight.sum(0) - weight) / (k - 1)
        others = torch.where(own, mean[:, None], weight[None]).logsumexp(1) - math.log(k)
        share = weight.softmax(0)
        return -((bound - others) * log_q + share * (joint - log_q)).sum(0).mean()


# --- dbn and dbm ------------------------------------------------------------------------------------------------------


def dbn_epoch() -> Measured:
    """Greedy training: an epoch of each of two machines."""
    event, x = _digits()
    model = unsup.create("dbn", event, hidden=(HIDDEN, HIDDEN), chains=BATCH, centred=False)
    assert isinstance(model, DBN)
    generator = torch.Generator().manual_seed(0)
    model.prepare(Batch(x), generator=generator)
    model.train()
    optimizers = [torch.optim.SGD(layer.parameters(), lr=LEARNING_RATE, fused=True) for layer in model.layers]
    flat = x.flatten(1).float().numpy()
    options: dict[str, Any] = {"learning_rate": LEARNING_RATE, "batch_size": BATCH, "n_iter": 1, "random_state": 0}
    peer = make_pipeline(BernoulliRBM(HIDDEN, **options), BernoulliRBM(HIDDEN, **options))

    def loss(index: int, rows: Tensor) -> Tensor:
        return model.layer_loss(index, Batch(x.index_select(0, rows)), generator=generator)["loss"].mean()

    def ours() -> None:
        for index, optimizer in enumerate(optimizers):
            for rows in torch.randperm(EXAMPLES, generator=generator).split(BATCH):
                training_step(optimizer, partial(loss, index, rows))()

    return interleave(
        f"DBN {HIDDEN}-{HIDDEN}, layers one after the other, an epoch of PCD-1 each, {EXAMPLES:,} examples",
        _fast(ours),
        {"scikit-learn, two BernoulliRBM in a pipeline, float32": lambda: peer.fit(flat)},
        rounds=7,
        target="≥ 1×",
        note="ours draws bits for the second layer at every step, scikit-learn passes probabilities once",
    )


def dbm_step() -> Measured:
    """Ten mean-field updates of the examples, two sweeps of the chains, and an update."""
    event, x = _digits()
    model = unsup.create("dbm", event, hidden=(HIDDEN, HIDDEN), chains=BATCH, centred=False, pretraining=0.0)
    assert isinstance(model, DBM)
    generator = torch.Generator().manual_seed(0)
    model.prepare(Batch(x), generator=generator)
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, fused=True)
    player: Objective = model.objectives()[-1]

    def loss() -> Tensor:
        rows = torch.randint(0, EXAMPLES, (BATCH,), generator=generator)
        found = player.loss(Batch(x.index_select(0, rows)), generator=generator)["loss"]
        return found.mean()

    return interleave(
        f"DBM {HIDDEN}-{HIDDEN}, one step, 10 mean-field updates, 2 sweeps of {BATCH} chains, batch {BATCH}",
        _fast(training_step(optimizer, loss)),
        {"plain PyTorch float32 script": _fast(_plain_dbm(x))},
        rounds=25,
        target="≥ 1×",
        note="the script updates in place by closed-form gradients, layer by layer; both with the same kernels",
    )


def _plain_dbm(x: Tensor) -> Callable[[], None]:
    w1, w2 = 0.01 * torch.randn(784, HIDDEN), 0.01 * torch.randn(HIDDEN, HIDDEN)
    b, c, d = torch.zeros(784), torch.zeros(HIDDEN), torch.zeros(HIDDEN)
    chains = torch.rand(BATCH, HIDDEN).bernoulli()

    def step() -> None:
        nonlocal chains
        v = _rows(x)
        below, h2 = v @ w1, torch.full((BATCH, HIDDEN), 0.5)
        h1 = torch.sigmoid(c + below + h2 @ w2.T)
        for _ in range(10):
            h2 = torch.sigmoid(d + h1 @ w2)
            h1 = torch.sigmoid(c + below + h2 @ w2.T)
        odd = chains
        for _ in range(2):
            dream, top = torch.sigmoid(b + odd @ w1.T).bernoulli(), torch.sigmoid(d + odd @ w2).bernoulli()
            mean = torch.sigmoid(c + dream @ w1 + top @ w2.T)
            odd = mean.bernoulli()
        chains = odd
        rate = LEARNING_RATE / BATCH
        w1.add_(v.T @ h1 - dream.T @ mean, alpha=rate)
        w2.add_(h1.T @ h2 - mean.T @ top, alpha=rate)
        b.add_((v - dream).sum(0), alpha=rate)
        c.add_((h1 - mean).sum(0), alpha=rate)
        d.add_((h2 - top).sum(0), alpha=rate)

    return step
