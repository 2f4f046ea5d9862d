"""Law cases of latent-variable models."""

from __future__ import annotations

from unsup.core.event import BINARY, REAL, Event, Support, labels
from unsup.core.part import Part
from unsup.testing.cases import oracles
from unsup.testing.cases.case import GAPS, MIXED, WORDS, Case, ordinal, vector

FREE = "some of the KL costs nothing in the loss"
REFINED = {
    "loss-is-likelihood": "in evaluation the posterior of each example is better than that of the encoder",
    "gradient": "the refined posterior depends on the encoder by its start, through which there is no gradient",
}
OF_CODES = {
    "loss-is-likelihood": "the loss compares codes with the prior in place of the KL term",
    "accumulation": "the codes of a batch are compared with each other, and those of a part are fewer",
}
_SMALL = {"channels": 4, "layers": 1, "head_channels": 4}
_SUBSCALE = {"channels": 4, "layers": 2, "attention": 0, "heads": 1, "embedding": 4, "blocks": 1}

_MAPS = {"net": "conv", "latents": (1,), "hidden": (4,), "blocks": (1, 1)}

BOUND = {"loss-is-likelihood": "the loss is a bound on log p, which is a sum over few states"}
FROM_PRIOR = {"loss-is-likelihood": "the loss draws from the prior, the bound from q"}
_FITTED = Part(
    "vq-vae", {"codebook_size": 8, "code_dim": 4, "width": 8, "block_width": 4, "blocks": 1, "hidden": (16,)}
)
_FITTED_2 = Part("vq-vae-2", {"codebook_size": 6, "code_dim": 4, "width": 8, "block_width": 8, "blocks": 1})
PROPOSAL = Part("latent", {"layers": (13,), "hidden": (4,)})
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
    Case("vae", vector(4), {"latent_dim": 2, "posterior": "full", "samples": 3, "gradient": "dreg"}),
    Case("vae", vector(4), {"latent_dim": 2, "posterior": "planar", "flow_steps": 2}),
    Case("vae", vector(4), {"latent_dim": 2, "posterior": "sylvester", "flow_steps": 2}),
    Case("vae", vector(4), {"latent_dim": 2, "posterior": "iaf", "flow_steps": 2, "flow_hidden": (8,)}),
    Case("vae", vector(4), {"latent_dim": 2, "pseudo_inputs": 3}),
    Case("vae", vector(4), {"latent_dim": 1, "refinement": 3}, exceptions=REFINED),
    Case("vae", vector(4), {"latent_dim": 2, "free_bits": 0.2}, exceptions={"loss-is-likelihood": FREE}),
    Case("vae", vector(4), {"latent_dim": 2, "beta": 0.0, "mmd": 10.0}, exceptions=OF_CODES),
    Case(
        "vae",
        vector(4),
        {"latent_dim": 1, "beta": 4.0},
        exceptions={"loss-is-likelihood": "the KL term has four times the weight in the loss"},
    ),
    Case("vae", Event((1, 1, 3), ordinal(3)), {"latent_dim": 1, "window": 1, "decoder": "logistic-mixture"}),
    Case("hierarchical-vae", vector(3), {"posterior": "bottom-up", "samples": 3, "gradient": "dreg"}),
    Case("hierarchical-vae", vector(3), {"posterior": "ladder", "norm": "batch"}),
    Case("hierarchical-vae", vector(2), {"posterior": "iaf", "flow_hidden": (6,), "given": labels(2)}, classes=2),
    Case(
        "hierarchical-vae",
        GAPS,
        {"posterior": "direct", "free_bits": 0.1},
        exceptions={"loss-is-likelihood": FREE},
    ),
    Case("hierarchical-vae", Event((2, 2, 3), ordinal(3)), _MAPS),
    Case("vq-vae", vector(6)),
    Case("vq-vae", vector(4, REAL), {"codebook_size": 32, "codebook": "gradient"}),
    Case(
        "vq-vae",
        MIXED,
        {"codes": 2},
        exceptions={"precision": "a real column is decoded to one value for each combination of codes, which are few"},
    ),
    Case("vq-vae", GAPS, {"codebook_size": 64}),
    Case("vq-vae", vector(3, ordinal(4)), {"codes": 2, "prior": Part("made", {"hidden": (12,)})}),
    Case(
        "vq-vae",
        Event((1, 8, 8), BINARY),
        {"codebook": "gradient"},
        exceptions={"descent": "distances to the codebook grow at first, while the encoder moves its vectors apart"},
    ),
    Case("vq-vae", Event((2, 4, 4), ordinal(5)), {"stages": 1, "prior": Part("gated-pixelcnn", _SMALL)}),
    Case(
        "vq-vae",
        vector(4),
        {"prior": Part("made", {"hidden": (12,)}), "autoencoder": _FITTED},
    ),
    Case("vq-vae-2", Event((1, 4, 6), BINARY)),
    Case(
        "vq-vae-2",
        Event((1, 5, 4), REAL),
        {"codebook": "gradient", "codebook_size": 32},
        exceptions={"descent": "distances to the codebook grow at first, while the encoder moves its vectors apart"},
    ),
    Case(
        "vq-vae-2",
        Event((2, 8, 8), ordinal(5)),
        {"prior": Part("gated-pixelcnn", _SMALL), "bottom_prior": Part("subscale", _SUBSCALE)},
    ),
    Case(
        "vq-vae-2",
        Event((2, 8, 8), ordinal(5)),
        {"levels": 3, "bottom_prior": Part("subscale", _SUBSCALE | {"scale": 1})},
    ),
    Case("vq-vae-2", Event((1, 8, 8), BINARY), {"prior": Part("made", {"hidden": (12,)}), "autoencoder": _FITTED_2}),
    Case("latent", vector(6), {"objective": "enumerate"}, oracle=oracles.latent),
    Case("latent", vector(5), {"layers": (3, 2), "hidden": (), "objective": "enumerate"}, oracle=oracles.latent),
    Case("latent", vector(6), {"layers": (1,), "categories": 5, "objective": "enumerate"}, oracle=oracles.latent),
    Case("latent", vector(2, REAL), {"layers": (2,), "categories": 3, "objective": "enumerate"}),
    Case("latent", WORDS, {"layers": (3,), "objective": "enumerate"}),
    Case("latent", vector(6), {"layers": (1,), "categories": 5, "objective": "variational"}),
    Case("latent", vector(4), {"layers": (2, 1), "hidden": (), "objective": "variational"}, exceptions=BOUND),
    Case("latent", vector(4), {"layers": (3,), "objective": "vimco"}, exceptions=BOUND),
    Case("latent", vector(5), {"layers": (13,), "objective": "vimco"}),
    Case("latent", vector(5), {"layers": (8,), "categories": 3, "objective": "importance"}),
    Case("latent", vector(5), {"layers": (13,), "objective": "importance", "proposal": PROPOSAL}),
    Case("latent", vector(5), {"layers": (8, 5), "hidden": (), "objective": "nvil"}),
    Case("latent", vector(5), {"layers": (13,), "objective": "prior"}, exceptions=FROM_PRIOR),
    Case("latent", GAPS, {"layers": (8,), "categories": 3, "objective": "gumbel-softmax"}),
    Case("latent", vector(5), {"layers": (8, 5), "hidden": (), "objective": "straight-through"}),
    Case("latent", vector(5), {"layers": (13,), "objective": "wake-sleep"}),
    Case("latent", GAPS, {"layers": (13,), "objective": "reweighted-wake-sleep"}),
    Case("latent", Event((1, 4, 4), BINARY), {"layers": (13,), "net": "conv", "hidden": (4,)}),
)
