"""Gradient estimators of `latent`: ``python -m benchmarks estimators`` writes a table and a picture for docs/latent.md.

Bias and standard deviation of the gradients of the parameters of q and of p, relative to the norm of the enumerated
gradient, for a network whose states of z are few enough for a sum. Some exact training comes first, so that neither p
nor q is arbitrary. Gradients of q are compared with those of the objective itself: with two draws a sum over all pairs,
of the sleep phase a sum over all dreams. Gradients of p are compared with that of log p(x). Times are medians of
interleaved training steps of the belief network 200-200-784 on random bits.
"""

from __future__ import annotations

import io
import itertools
import math
import statistics
import time
from pathlib import Path
from typing import Any, Literal

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn

from unsup.core.batch import Batch
from unsup.core.event import BINARY, Event
from unsup.core.machine import machine_kind
from unsup.core.registry import create
from unsup.families.latent.latent import Latent
from unsup.prob import bounds

PAGE, PICTURE = Path("docs/latent.md"), Path("docs/latent-gradients.png")
BEGIN, END = "<!-- estimators, written by python -m benchmarks estimators -->", "<!-- end of estimators -->"
DIMS, LATENTS, EXAMPLES = 12, 4, 8
TRAINING, RATE = 50, 0.02
DRAWS, PARTS = 200_000, 100  # of each estimator, in so many parts, whose spread is the error of the bias
TEMPERATURES = (1.0, 0.5, 0.1)
ROUNDS, BATCH = 15, 100


def _at(tau: float) -> dict[str, Any]:
    return {"temperature": tau, "last_temperature": tau}


RELAXED: tuple[tuple[str, dict[str, Any]], ...] = tuple(
    (f"`{name}`, τ = {tau:g}", {"objective": name, **_at(tau)})
    for name in ("gumbel-softmax", "straight-through")
    for tau in TEMPERATURES
)
OF_Q: tuple[tuple[str, int, dict[str, Any]], ...] = (
    ("`importance`, k = 1 (REINFORCE)", 1, {"objective": "importance", "samples": 1}),
    ("`nvil`", 1, {"objective": "nvil"}),
    *((name, 1, options) for name, options in RELAXED),
    ("`importance`, k = 2", 2, {"objective": "importance", "samples": 2}),
    ("`vimco`, k = 2", 2, {"objective": "vimco", "samples": 2}),
)
"""Name, draws of the bound and options of the estimators of a bound."""
OF_POSTERIOR: tuple[tuple[str, dict[str, Any]], ...] = (
    ("`wake-sleep`, sleep phase", {"objective": "wake-sleep"}),
    *(
        (f"`reweighted-wake-sleep`, k = {k}, wake phase of q", {"objective": "reweighted-wake-sleep", "samples": k})
        for k in (2, 50)
    ),
)
"""Name and options of the estimators of a cross-entropy of q: from dreams, or from the posterior."""
OF_P: tuple[tuple[str, dict[str, Any]], ...] = (
    ("`enumerate`", {"objective": "enumerate"}),
    ("`variational`", {"objective": "variational"}),
    ("`prior`, k = 100", {"objective": "prior", "samples": 100}),
    ("`importance`, `vimco`, `reweighted-wake-sleep`, k = 5", {"objective": "vimco", "samples": 5}),
    ("the same, k = 50", {"objective": "vimco", "samples": 50}),
    ("`nvil`, `wake-sleep`", {"objective": "wake-sleep"}),
    *RELAXED,
)
"""Name and options of the estimators of p; some are the same for p."""
TIMED: dict[str, dict[str, Any]] = {
    "`nvil`": {"objective": "nvil"},
    "`gumbel-softmax`": {"objective": "gumbel-softmax"},
    "`straight-through`": {"objective": "straight-through"},
    "`wake-sleep`": {"objective": "wake-sleep"},
    "`importance`, k = 5": {"objective": "importance", "samples": 5},
    "`vimco`, k = 5": {"objective": "vimco", "samples": 5},
    "`reweighted-wake-sleep`, k = 5": {"objective": "reweighted-wake-sleep", "samples": 5},
}


def data() -> Tensor:
    """Bits around four centres, ``(EXAMPLES, DIMS)``."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.rand(4, DIMS, generator=generator) < 0.5
    flips = torch.rand(EXAMPLES, DIMS, generator=generator) < 0.1
    return (centres[torch.arange(EXAMPLES) % 4] ^ flips).long()


def built(**options: Any) -> Latent:
    model = create("latent", Event((DIMS,), BINARY), seed=0, layers=(LATENTS,), hidden=(), **options).double()
    assert isinstance(model, Latent)
    return model


def log_tables(model: Latent, x: Tensor) -> tuple[Tensor, Tensor]:
    """log p(x, z) and log q(z|x) of all states, ``(S, B)``."""
    z = [s[:, None] for s in model._states()]
    log_likelihood = model.nets.log_likelihood_table(model.nets.target(x), z[0][:, 0])
    log_p = log_likelihood + model._log_prob_of(z, model._prior_logits(z))
    return log_p, model._log_prob_of(z, model._posterior_logits(x, z))


def enumerated(model: Latent, x: Tensor, k: int) -> Tensor:
    """E L_k of each example, over all draws."""
    log_p, log_q = log_tables(model, x)
    draws = torch.tensor(list(itertools.product(range(len(log_p)), repeat=k))).T
    return (log_q[draws].sum(0).exp() * bounds.iwae((log_p - log_q)[draws])).sum(0)


def trained(x: Tensor) -> Latent:
    """Half-trained on the enumerated ELBO, the same parameters for all estimators."""
    model = built(objective="nvil")
    model.prepare(Batch(x), generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    for step in range(TRAINING):
        optimizer.zero_grad()
        (-enumerated(model, x, 1).mean()).backward()
        error = model.loss(Batch(x), generator=torch.Generator().manual_seed(step))["loss"].mean()
        parameters = list(model.baselines.parameters())  # their own error, of a draw
        for p, gradient in zip(parameters, torch.autograd.grad(error, parameters), strict=True):
            p.grad = gradient
        optimizer.step()
    return model


def parameters_of(model: Latent, network: Literal["q", "p"]) -> list[nn.Parameter]:
    of_q = [*model.nets.encoder.parameters()] if model.nets.encoder is not None else []
    if network == "q":
        return of_q
    return [*model.nets.decoder.parameters(), *model.down.parameters(), model.prior]


def gradient(value: Tensor, parameters: list[nn.Parameter]) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(value, parameters)])


def loss_of_q(model: Latent, batch: Batch, generator: torch.Generator) -> Tensor:
    """The loss from which q learns; of reweighted wake-sleep the part of the weighted draws alone."""
    found = model.loss(batch, generator=generator)["loss"]
    if model.objective == "wake-sleep":
        found = model.recognition_loss(batch, generator=generator)["loss"]
    elif model.objective == "reweighted-wake-sleep":
        z, share = batch.shared["latents"]
        found = -(share * model._log_prob_of(z, model._posterior_logits(batch.x, z))).sum(0)
    return found.mean()


def loss_of_p(model: Latent, batch: Batch, generator: torch.Generator) -> Tensor:
    return model.loss(batch, generator=generator)["loss"].mean()


def dreamt(model: Latent) -> Tensor:
    """−E_p(x, z) log q(z|x), a sum over all x and z."""
    x = torch.tensor(list(itertools.product((0, 1), repeat=DIMS)))
    log_p, log_q = log_tables(model, x)
    return -(log_p.exp().detach() * log_q).sum()


def of_posterior(model: Latent, x: Tensor) -> Tensor:
    """−E_p(z|x) log q(z|x), a mean over examples."""
    log_p, log_q = log_tables(model, x)
    return -(log_p.softmax(0).detach() * log_q).sum(0).mean()


def measured(model: Latent, x: Tensor, exact: Tensor, network: Literal["q", "p"]) -> tuple[float, float, float]:
    """Relative bias, its error, and relative standard deviation of the gradient of one draw for each example."""
    loss = loss_of_q if network == "q" else loss_of_p
    rows, parts = DRAWS // PARTS // (model.samples if network == "p" else 1), PARTS
    if model.objective == "prior":  # all rows share their draws
        rows, parts = 1, 20 * PARTS
    size, parameters = float(exact.norm()), parameters_of(model, network)
    means = []
    model.train()
    for part in range(parts):
        generator = torch.Generator().manual_seed(1 + part)
        means.append(gradient(loss(model, Batch(x.repeat(rows, 1)), generator), parameters))
    found = torch.stack(means)
    # A part is the mean of `rows` gradients of one draw for each example.
    deviation = float(found.var(0).sum().sqrt()) * math.sqrt(rows)
    error = float(found.var(0).sum().sqrt()) / math.sqrt(parts)
    return float((found.mean(0) - exact).norm()) / size, error / size, deviation / size


def times() -> dict[str, float]:
    """Median milliseconds of a training step, by interleaved rounds."""
    x = (torch.rand(BATCH, 1, 28, 28, generator=torch.Generator().manual_seed(0)) < 0.13).to(torch.uint8)
    steps = {}
    for name, options in TIMED.items():
        model = create("latent", Event((1, 28, 28), BINARY), preset="paper", seed=0, **options).train()
        players = [(o, torch.optim.Adam(o.parameters, fused=True)) for o in model.objectives()]
        steps[name] = players
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    generator = torch.Generator().manual_seed(0)
    for round_number in range(ROUNDS + 2):
        for name, players in steps.items():
            started, batch = time.perf_counter(), Batch(x)
            for objective, optimizer in players:
                optimizer.zero_grad()
                objective.loss(batch, generator=generator)["loss"].mean().backward()
                optimizer.step()
            if round_number >= 2:
                seconds[name].append(time.perf_counter() - started)
    return {name: 1000 * statistics.median(found) for name, found in seconds.items()}


def picture(found: dict[str, tuple[float, float, float]]) -> None:
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    relaxed: dict[str, list[tuple[float, float]]] = {}
    for name, (bias, error, deviation) in found.items():
        plain, _, tau = name.replace("`", "").partition(", τ = ")
        if tau:
            relaxed.setdefault(plain, []).append((bias, deviation))
            axes.annotate(f"τ = {tau}", (bias, deviation), (6, -3), textcoords="offset points", fontsize=7)
            continue
        axes.errorbar(bias, deviation, xerr=error, fmt="o", color="#3b6ea8")
        axes.annotate(plain, (bias, deviation), (0, 6), textcoords="offset points", fontsize=8, ha="center")
    for (plain, points), colour in zip(relaxed.items(), ("#d97b29", "#888888"), strict=True):
        axes.plot(*zip(*points, strict=True), "o-", color=colour, label=plain)
    axes.legend(frameon=False, loc="lower left")
    axes.set(xscale="log", yscale="log", xlim=(8e-3, 8), ylim=(2, 600), title="gradient of q, relative to its norm")
    axes.set(xlabel="bias (blue: unbiased, within the noise shown)", ylabel="standard deviation")
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=90)
    with Image.open(drawn) as image:
        image.convert("RGB").quantize(64).save(PICTURE, optimize=True)


def table(found: dict[str, tuple[float, float, float]]) -> list[str]:
    return [
        "| estimator | bias | its noise | standard deviation |",
        "| --- | --- | --- | --- |",
        *(f"| {name} | {bias:.3f} | {error:.3f} | {std:.1f} |" for name, (bias, error, std) in found.items()),
    ]


def main() -> None:
    x = data()
    state = trained(x).state_dict()

    def trained_with(options: dict[str, Any]) -> Latent:
        model = built(**options)
        model.load_state_dict({n: state[n] for n in model.state_dict()})
        return model

    of_q: dict[str, tuple[float, float, float]] = {}
    for name, k, options in OF_Q:
        model = trained_with(options)
        exact = gradient(-enumerated(model, x, k).mean(), parameters_of(model, "q"))
        of_q[name] = measured(model, x, exact, "q")
    picture(of_q)
    for name, options in OF_POSTERIOR:
        model = trained_with(options)
        target = dreamt(model) if model.objective == "wake-sleep" else of_posterior(model, x)
        of_q[name] = measured(model, x, gradient(target, parameters_of(model, "q")), "q")
    of_p: dict[str, tuple[float, float, float]] = {}
    for name, options in OF_P:
        model = trained_with(options)
        exact = gradient(-model.log_prob(x).mean(), parameters_of(model, "p"))
        of_p[name] = measured(model, x, exact, "p")
    lines = [
        f"Gradient of the parameters of q for {LATENTS} binary latents, {DIMS} bits and {EXAMPLES} examples after "
        f"{TRAINING} exact steps, with one z, or k, for each example: distance of the mean of {DRAWS:,} gradients from "
        "the enumerated gradient, and standard deviation of one, both relative to the norm of the enumerated gradient. "
        "An unbiased estimator has a bias about as large as its noise. The enumerated gradient is that of the bound "
        "L_1 or L_k; of the sleep phase, of E_p log q(z|x) over all dreams; of the wake phase of q, of "
        "E_p(z|x) log q(z|x).",
        "",
        *table(of_q),
        "",
        "Gradient of the parameters of p, in the same way, against the enumerated gradient of log p(x): the bias is "
        "that of the bound, which the objective maximises instead, and of the estimator "
        f"({DRAWS:,} draws in all of each; `prior`: {20 * PARTS:,} gradients).",
        "",
        *table(of_p),
        "",
        f"Time of a training step of the belief network 200-200-784, batch {BATCH}, {torch.get_num_threads()} threads "
        f"({machine_kind()}):",
        "",
        "| objective | ms |",
        "| --- | --- |",
        *(f"| {name} | {milliseconds:.1f} |" for name, milliseconds in times().items()),
    ]
    text = PAGE.read_text()
    before, rest = text.split(BEGIN)
    PAGE.write_text(before + BEGIN + "\n\n" + "\n".join(lines) + "\n\n" + END + rest.split(END)[1])
