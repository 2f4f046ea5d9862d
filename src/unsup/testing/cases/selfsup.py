"""Law cases of self-supervised models."""

from __future__ import annotations

from unsup.core.event import BINARY, REAL, Event, Support
from unsup.testing.cases.case import GAPS, MIXED, WORDS, Case, ordinal, vector

COMPARED = {"accumulation": "the examples of a batch are compared with each other, and those of a part are fewer"}
QUEUED = COMPARED | {"descent": "the keys of the batch are put into the queue, and are then negatives of themselves"}
_COLOURS = Event((3, 6, 6), ordinal(256), "image")
_GREY = Event((1, 6, 6), BINARY, "image")
_SMALL_PLACES = {"kernels": (4, 3), "strides": (2, 2), "patch": 4}  # of tiny examples

CASES: tuple[Case, ...] = (
    Case("autoencoder", vector(6), {"code": 3}),
    Case("autoencoder", vector(4, REAL), {"code": 2, "hidden": ()}),
    Case("autoencoder", vector(3, Support("nominal", 3)), {"code": 2}),
    Case("autoencoder", vector(3, ordinal(4)), {"code": 2, "activation": "relu"}),
    Case("autoencoder", MIXED, {"code": 2}),
    Case("autoencoder", WORDS, {"code": 2}),
    Case("autoencoder", GAPS, {"code": 2}),
    Case("autoencoder", Event((1, 4, 4), ordinal(17)), {"code": 3}),
    Case("autoencoder", Event((2, 4, 5), ordinal(5)), {"net": "conv", "hidden": (4,)}),
    Case(
        "autoencoder",
        vector(5),
        {"code": 7, "hidden": (), "code_activation": "sigmoid", "tied": True, "sparsity": 0.5, "target": 0.2},
    ),
    Case(
        "autoencoder",
        vector(5),
        {"code": 7, "hidden": (), "code_activation": "sigmoid", "tied": True, "contractive": 0.1},
    ),
    Case("autoencoder", vector(3, REAL), {"code": 2, "hidden": (6, 5), "contractive": 0.1}),
    Case("denoising-autoencoder", vector(6)),
    Case("denoising-autoencoder", vector(5), {"tied": True, "noise": "salt", "pretraining": 1.0}),
    Case("denoising-autoencoder", vector(3, REAL), {"noise": "gaussian", "corruption": 0.5, "activation": "tanh"}),
    Case("denoising-autoencoder", vector(3, REAL), {"hidden": (), "activation": "linear", "corruption": 0.0}),
    Case("denoising-autoencoder", vector(3, Support("nominal", 3)), {"activation": "relu", "tied": True}),
    Case("denoising-autoencoder", vector(3, ordinal(4)), {"noise": "gaussian", "pretraining": 0.0}),
    Case("denoising-autoencoder", MIXED, {"pretraining": 0.0}),
    Case("denoising-autoencoder", WORDS, {"noise": "gaussian"}),
    Case("denoising-autoencoder", GAPS, {"pretraining": 0.0}),
    Case("denoising-autoencoder", GAPS, {"noise": "gaussian", "pretraining": 0.0}),
    Case("denoising-autoencoder", Event((1, 4, 4), BINARY), {"net": "conv", "hidden": (4,)}),
    Case("denoising-autoencoder", Event((2, 4, 4), Support("nominal", 3)), {"net": "conv", "hidden": (4,)}),
    Case("rotation", Event((1, 5, 5), BINARY)),
    Case("rotation", Event((3, 6, 6), ordinal(256)), {"net": "nin-3", "width": 0.04}),
    Case("patch-position", Event((1, 16, 17), BINARY)),
    Case("patch-position", Event((3, 16, 16), ordinal(256)), {"grids": 2, "stage": 2}),
    Case("jigsaw", Event((1, 15, 16), BINARY)),
    Case("jigsaw", Event((3, 15, 15), ordinal(256)), {"dropout": 0.3, "stage": 2}),
    Case("colorization", Event((3, 5, 4), ordinal(256))),
    Case("colorization", Event((3, 5, 6), Support("ordinal", 5, low=-2)), {"halvings": 2, "layers": 2, "dilated": 0}),
    Case("colorization", Event((3, 4, 4), BINARY), {"uniform": 1.0}),
    Case("split-brain", Event((3, 5, 4), ordinal(256))),
    Case("split-brain", Event((3, 5, 6), BINARY), {"halvings": 2, "layers": 2, "dilated": 0}),
    Case("split-brain", Event((3, 17, 9), Support("ordinal", 5, low=-2)), {"net": "alexnet"}),
    Case("cpc", Event((16,), ordinal(256), "sequence"), exceptions=COMPARED, beside=_SMALL_PLACES),
    Case(
        "cpc", Event((30, 2), REAL, "sequence"), {"window": 20, "steps": 2}, exceptions=COMPARED, beside=_SMALL_PLACES
    ),
    Case("cpc", Event((2, 8, 6), ordinal(5)), exceptions=COMPARED, beside=_SMALL_PLACES),
    Case(
        "cpc",
        Event((1, 6, 6), BINARY),
        {"norm": "none", "bottleneck": True, "steps": 1, "layers": 2},
        exceptions=COMPARED,
        beside=_SMALL_PLACES,
    ),
    Case("simclr", _COLOURS, exceptions=COMPARED),
    Case("simclr", _GREY, {"net": "resnet18", "width": 0.05}, exceptions=COMPARED),
    Case("moco", _COLOURS, exceptions=QUEUED),
    Case("moco", _GREY, {"projection": (8,), "views": "moco-v1"}, exceptions=QUEUED),
    Case("byol", _COLOURS, exceptions=COMPARED),
    Case("byol", _GREY, {"teacher": False}, exceptions=COMPARED),
    Case("vicreg", _COLOURS, exceptions=COMPARED),
    Case("vicreg", _GREY, {"objective": "barlow-twins"}, exceptions=COMPARED),
    Case("mae", Event((1, 8, 8), BINARY)),
    Case("mae", Event((3, 4, 8), ordinal(4)), {"class_token": True, "mask_ratio": 0.5}),
    Case("mae", Event((1, 4, 6), ordinal(4)), {"normalised": False}),
)
