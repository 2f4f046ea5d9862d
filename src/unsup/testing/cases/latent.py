"""Law cases of latent-variable models."""

from __future__ import annotations

from unsup.core.event import BINARY, REAL, Event, Support, labels
from unsup.core.part import Part
from unsup.testing.cases import oracles
from unsup.testing.cases.case import GAPS, MIXED, WORDS, Case, ordinal, vector

BOUND = {"loss-is-likelihood": "the loss is a bound on log p, which is a sum over few states"}
FROM_PRIOR = {"loss-is-likelihood": "the loss draws from the prior, the bound from q"}
CASES = (
    Case("vae", vector(6), {"latent_dim": 2}),
    Case("vae", vector(6), {"latent_dim": 2, "samples": 5}),
    Case("vae", vector(6), {"latent_dim": 2, "samples": 5, "gradient": "dreg"}),
    Case("vae", vector(2, REAL), {"latent_dim": 1, "hidden": ()}),
    Case("vae", vector(3, Support("nominal", 3)), {"latent_dim": 2}),
    Case("vae", vector(3, ordinal(4)), {"latent_dim": 2}),
    Case("vae", Event((1, 8, 8), BINARY), {"net": "conv", "hidden": (4, 8)}),
    Case("vae", MIXED, {"latent_dim": 2}),
    Case("vae", WORDS, {"latent_dim": 1}),
    Case("vae", GAPS, {"latent_dim": 1}),
    Case("vae", Event((2,), REAL, missing=True), {"latent_dim": 1, "samples": 3}),
    Case("vae", vector(3), {"latent_dim": 1, "given": GAPS}),
    Case("vae", vector(5), {"latent_dim": 2, "prior": Part("made", {"hidden": (12,), "components": 3})}),
    Case("vae", vector(4), {"latent_dim": 1, "gradient": "stl"}),
    Case("vae", vector(4), {"latent_dim": 1, "given": labels(3)}, classes=3),
    Case("vae", Event((1, 4, 4), BINARY), {"net": "conv", "hidden": (4,), "given": labels(2)}, classes=2),
    Case("vae", vector(3), {"latent_dim": 2, "given": vector(2, REAL)}),
    Case(
        "vae",
        vector(4),
        {"latent_dim": 1, "beta": 4.0},
        exceptions={"loss-is-likelihood": "the KL term has four times the weight in the loss"},
    ),
    Case("latent", vector(6), {"objective": "enumerate"}, oracle=oracles.latent),
    Case("latent", vector(5), {"layers": (3, 2), "hidden": (), "objective": "enumerate"}, oracle=oracles.latent),
    Case("latent", vector(6), {"layers": (1,), "categories": 5, "objective": "enumerate"}, oracle=oracles.latent),
    Case("latent", vector(2, REAL), {"layers": (2,), "categories": 3, "objective": "enumerate"}),
    Case("latent", WORDS, {"layers": (3,), "objective": "enumerate"}),
    Case("latent", vector(4), {"layers": (3,), "objective": "vimco"}, exceptions=BOUND),
    Case("latent", vector(5), {"layers": (13,), "objective": "vimco"}),
    Case("latent", vector(5), {"layers": (8,), "categories": 3, "objective": "importance"}),
    Case("latent", vector(5), {"layers": (8, 5), "hidden": (), "objective": "nvil"}),
    Case("latent", vector(5), {"layers": (13,), "objective": "prior"}, exceptions=FROM_PRIOR),
    Case("latent", GAPS, {"layers": (8,), "categories": 3, "objective": "gumbel-softmax"}),
    Case("latent", vector(5), {"layers": (8, 5), "hidden": (), "objective": "straight-through"}),
    Case("latent", vector(5), {"layers": (13,), "objective": "wake-sleep"}),
    Case("latent", GAPS, {"layers": (13,), "objective": "reweighted-wake-sleep"}),
    Case("latent", Event((1, 4, 4), BINARY), {"layers": (13,), "net": "conv", "hidden": (4,)}),
)
