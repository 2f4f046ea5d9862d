"""Write ``docs/parameters.md``, sizes of paper presets beside the published ones: ``python scripts/parameters.py``.

Parameters are on the meta device, so that the largest model takes no memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.modules import module as hooks

import unsup
from unsup.core.event import BINARY, REAL, Event, Support
from unsup.core.memory import within
from unsup.core.registry import model_class, names

FILE = Path(__file__).parents[1] / "docs" / "parameters.md"

TOLERANCE = 0.02
"""Largest relative distance from a reported number, which has two or three digits."""

FAMILIES = ("autoregressive", "flows", "latent", "energy", "selfsup")
_AS_LARGE_AS_NEEDED = 2**50


def _images(channels: int, side: int, levels: int = 256) -> Event:
    return Event((channels, side, side), Support("ordinal", levels))


def _text(length: int, symbols: int) -> Event:
    return Event((length,), Support("nominal", symbols), "sequence")


def _images_of(side: int) -> tuple[str, Event]:
    return f"ImageNet {side}×{side}", _images(3, side)


MNIST = ("binarized MNIST", Event((1, 28, 28), BINARY))
CIFAR = ("CIFAR-10", _images(3, 32))
IMAGENET_32 = ("ImageNet 32×32", _images(3, 32))
IMAGENET_256 = ("ImageNet 256×256", _images(3, 256))
IMAGENET_224 = ("ImageNet 224×224", _images(3, 224))
IMAGENET_176 = ("ImageNet 176×176", _images(3, 176))
IMAGENET_180 = ("ImageNet 180×180", _images(3, 180))
IMAGENET_64 = ("ImageNet 64×64", _images(3, 64))
PHOTOGRAPHS = ("photographs", _images(3, 400))
COLOURS = ("32×32 images of 512 colours", Event((1, 32, 32), Support("nominal", 512)))
PENN = ("Penn Treebank, 49 characters", _text(100, 49))
ENWIK8 = ("enwik8, 204 symbols", _text(1024, 204))
BYTES = ("enwik8, 256 bytes", _text(512, 256))
LONG_BYTES = ("enwik8, 256 bytes", _text(12_288, 256))
SOUND = ("16 kHz sound, 256 levels", Event((16_000,), Support("ordinal", 256), "sequence"))
MINIBOONE = ("MINIBOONE, 43 columns", Event((43,), REAL))
MNIST_LEVELS = ("MNIST", _images(1, 28))
CODES = ("64 real entries", Event((64,), REAL))
PLANE = ("two real columns", Event((2,), REAL))
PAIRS = ("two entries of 200 levels", Event((2,), Support("ordinal", 200)))

GRAVES = "[Graves 2013](https://arxiv.org/abs/1308.0850), section 3.1"
IMAGE_GPT = "[Chen et al. 2020](https://proceedings.mlr.press/v119/chen20s.html)"
SPARSE = "[Child et al. 2019](https://arxiv.org/abs/1904.10509)"
XL = "[Dai et al. 2019](https://arxiv.org/abs/1901.02860), table 2"
VDVAE = "[Child 2020](https://arxiv.org/abs/2011.10650), table 2"


@dataclass(frozen=True)
class Published:
    """A number of parameters in a publication.

    Attributes:
        count: the number, as it is rounded there.
        source: where it is.
        estimate: whether it is an estimate by authors of another paper.
    """

    count: float
    source: str
    estimate: bool = False

    @property
    def text(self) -> str:
        return f"{self.count / 1e6:g} M{' (estimate)' if self.estimate else ''}"


@dataclass(frozen=True)
class Entry:
    """A model of the page.

    Attributes:
        model: its name.
        preset: its preset; None for ``options`` only.
        data: what it is for, and the event.
        published: the published number, if any.
        note: what the difference is made of, or what the paper does not state.
        missed: whether the published number is known not to be met; ``note`` has the reason.
        options: options beside the preset.
    """

    model: str
    preset: str | None
    data: tuple[str, Event]
    published: Published | None
    note: str
    missed: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ours(self) -> int:
        return count(self)

    @property
    def ratio(self) -> float | None:
        return None if self.published is None else self.ours / self.published.count

    @property
    def within_tolerance(self) -> bool:
        return self.ratio is not None and abs(self.ratio - 1) <= TOLERANCE


PRESETS = (
    Entry("fvsbn", "paper", MNIST, None, "Weights are stored as a square; 307,720 parameters are not masked."),
    Entry("nade", "paper", MNIST, None, "W and V of 784 × 500 and the biases of 500 and 784 units, untied."),
    Entry(
        "nade",
        "paper-orderless",
        MNIST,
        None,
        "Two layers of 500 units; the mask beside the inputs doubles the first one.",
    ),
    Entry("made", "paper", MNIST, None, "All weights of the masked layers are counted. Masks are not parameters."),
    Entry(
        "pixelcnn",
        "paper",
        CIFAR,
        None,
        "Kernels are stored without the rows below their centre. Two layers of 1,024 features precede the logits.",
    ),
    Entry(
        "gated-pixelcnn",
        "paper",
        IMAGENET_32,
        Published(177e6, VDVAE, estimate=True),
        "Only what a kernel can see is stored: 3×5 of 5×5 weights, and 1×3 of 1×5. Whole kernels would be 185 M, 5% "
        "above the estimate; the paper does not specify the output layers.",
        missed=True,
    ),
    Entry("pixelrnn", "paper", MNIST, None, "The 7-layer Diagonal BiLSTM with 16 cells."),
    Entry(
        "pixelrnn",
        "paper-cifar10",
        CIFAR,
        None,
        "The 12-layer Diagonal BiLSTM with 128 cells; input-to-state weights are masked and counted whole.",
    ),
    Entry(
        "pixelcnn++",
        "paper",
        CIFAR,
        Published(53e6, VDVAE, estimate=True),
        "Layer for layer the published code, with a gain and a bias for each output of a convolution.",
    ),
    Entry(
        "pixelsnail",
        "paper",
        CIFAR,
        None,
        "Layer for layer the [published code](https://github.com/neocxi/pixelsnail-public) with its settings for "
        "CIFAR-10: ELU, 4 residual blocks before each attention. The first kernel is stored as 2×3, of "
        "which two taps are masked.",
    ),
    Entry(
        "image-transformer",
        "paper",
        CIFAR,
        None,
        "The categorical model, of which the paper reports layers and widths only. Attention has no biases, and "
        "coordinates are learned.",
    ),
    Entry(
        "sparse-transformer",
        "paper",
        CIFAR,
        Published(59e6, f"{SPARSE}, table 1"),
        "Biases, norms, embeddings and logits are in the 0.2 M above the reported number, which is rounded.",
    ),
    Entry(
        "transformer",
        "paper",
        COLOURS,
        Published(76e6, f"{IMAGE_GPT}, section 3.3"),
        "iGPT-S. Positions are a row and a column instead of 1,024 vectors (0.5 M less).",
    ),
    Entry(
        "transformer-xl",
        "paper",
        ENWIK8,
        Published(41e6, XL),
        "The 12-layer model, 1.06 bits per character in the paper. Logits have weights of their own (0.1 M), and each "
        "layer its own u and v.",
    ),
    Entry("rnn", "paper", PENN, Published(4.3e6, GRAVES), "One layer of 1,000 cells without peepholes."),
    Entry("wavenet", "paper", SOUND, None, "The paper does not state widths; 64 and 256 are our choice."),
    Entry("parallel-multiscale", "paper", IMAGENET_64, None, "The paper does not state widths; ours are our choice."),
    Entry(
        "subscale",
        "paper",
        IMAGENET_64,
        Published(150e6, f"{SPARSE}, table 1"),
        "Widths and numbers of layers are our choice, so the preset is not the published model.",
        missed=True,
    ),
    Entry("subscale-depth", "paper", IMAGENET_64, None, "Two networks of the size of `subscale`, our choice as well."),
    Entry("conditional-2d", "paper", PAIRS, None, "An exercise without a published model."),
    Entry("nice", "paper", MNIST_LEVELS, None, "Four networks of five layers of 1,000 units, and one scale per entry."),
    Entry("realnvp", "paper", CIFAR, None, "8 residual blocks of 64 channels, of 128 after the squeeze."),
    Entry("glow", "paper", CIFAR, None, "Three scales of 32 steps; each 1×1 convolution is stored as L, U and log|s|."),
    Entry("flow++", "paper", CIFAR, None, "Networks of the noise have the 96 channels of the others."),
    Entry("maf", "paper", MINIBOONE, None, "Five masked networks of two layers of 512 units, counted whole."),
    Entry("iaf", "paper", CODES, None, "The paper has this flow as a posterior only; widths were not verified."),
    Entry("naf", "paper", MINIBOONE, None, "Five networks of two layers of 512 units, our choice, and 16 sigmoids."),
    Entry("naf", "paper-ddsf", MINIBOONE, None, "The same with two layers of 16 sigmoids for each entry."),
    Entry("spline-flow", "paper", MINIBOONE, None, "Ten couplings, with 256 units in two residual blocks."),
    Entry(
        "spline-flow",
        "paper-autoregressive",
        MINIBOONE,
        None,
        "Ten autoregressive steps of the same width. All weights of masked layers are counted.",
    ),
    Entry(
        "spline-flow",
        "paper-cifar10",
        CIFAR,
        None,
        "Three scales of 7 steps, with 96 channels in three residual blocks. Batch norms have no gain.",
    ),
    Entry("ffjord", "paper", MNIST_LEVELS, None, "How time enters the layers was not verified for this model."),
    Entry("residual-flow", "paper", CIFAR, None, "Three scales of 16 blocks of 512 channels, and 4 dense blocks."),
    Entry("cdf-flow", "paper", PLANE, None, "The paper has a transformation only; the mixtures are our choice."),
    Entry("planar", "paper", PLANE, None, "Two vectors and a number for each step."),
    Entry("radial", "paper", PLANE, None, "A point and two numbers for each step."),
    Entry("sylvester", "paper", CODES, None, "The paper has this flow as a posterior only."),
    Entry("vae", "paper", MNIST, None, "The IWAE network of one stochastic layer: 200-200-50."),
    Entry(
        "hierarchical-vae",
        "paper",
        CIFAR,
        Published(39e6, "[authors' code](https://github.com/openai/vdvae)"),
        "VD-VAE block by block: 43 layers of latents.",
    ),
    Entry("hierarchical-vae", "paper-two-layer", MNIST, None, "The IWAE network of two stochastic layers."),
    Entry(
        "hierarchical-vae",
        "paper-ladder",
        MNIST,
        None,
        "Batch normalisation in place of biases.",
    ),
    Entry(
        "latent",
        "paper",
        MNIST,
        None,
        "The network 200-200-784, and q of the same shape.",
    ),
    Entry(
        "vq-vae",
        "paper",
        CIFAR,
        None,
        "Without a prior of the codes; the codebook is counted.",
    ),
    Entry(
        "vq-vae-2",
        "paper",
        IMAGENET_256,
        None,
        "Two maps, 64×64 and 32×32. The priors have the default sizes of `pixelsnail` and `subscale`, not the "
        "published ones.",
    ),
    Entry("rbm", "paper", MNIST, None, "500 hidden units."),
    Entry("dbn", "paper", MNIST, None, "784-500-2000; without recognition weights, since it is trained greedily only."),
    Entry("dbm", "paper", MNIST, None, "784-500-1000."),
    Entry("ebm", "paper", CIFAR, None, "No published number is known to us."),
    Entry("score-matching", "paper", PLANE, None, "An exercise without a published model."),
    Entry("autoencoder", "paper", MNIST, None, "784-1000-500-250-30 and back."),
    Entry("denoising-autoencoder", "paper", MNIST, None, "Three layers of 1,000 units; the sizes are our choice."),
    Entry(
        "simclr",
        "paper",
        IMAGENET_224,
        None,
        "ResNet-50 without classifier (23,508,032) and a head 2048-2048-128 (4,460,544).",
    ),
    Entry(
        "moco",
        "paper",
        IMAGENET_224,
        None,
        "ResNet-50 and a linear head of 128, twice: half of the numbers are the teacher's.",
    ),
    Entry("moco", "paper-v2", IMAGENET_224, None, "The same with a head 2048-2048-128."),
    Entry(
        "byol",
        "paper",
        IMAGENET_224,
        None,
        "ResNet-50 and a head 2048-4096-256, twice, and the predictor 256-4096-256.",
    ),
    Entry(
        "byol",
        "paper-simsiam",
        IMAGENET_224,
        None,
        "SimSiam: ResNet-50, a head 2048-2048-2048-2048 and the predictor 2048-512-2048, without a teacher.",
    ),
    Entry("vicreg", "paper", IMAGENET_224, None, "ResNet-50 and an expander 2048-8192-8192-8192."),
    Entry(
        "mae",
        "paper",
        IMAGENET_224,
        None,
        "ViT-B/16 without classifier (85,647,360) and a decoder of 8 blocks of 512 (26,008,320). The "
        "[published code](https://github.com/facebookresearch/mae) stores fixed positions of 197 tokens among its "
        "parameters, 151,296 and 100,864 numbers that are not trained: with them, 85.8 M and 111.9 M in all.",
    ),
    Entry(
        "mae",
        "paper-large",
        IMAGENET_224,
        None,
        "ViT-L/16 without classifier (303,099,904) and the same decoder.",
    ),
    Entry(
        "mae",
        "paper-huge",
        IMAGENET_224,
        None,
        "ViT-H/14 without classifier and the same decoder.",
    ),
    Entry(
        "colorization",
        "paper",
        IMAGENET_176,
        None,
        "Layer for layer the [published code](https://github.com/richzhang/colorization), whose fixed layer from bins "
        "to ab is not a parameter here.",
    ),
    Entry(
        "split-brain",
        "paper",
        IMAGENET_180,
        None,
        "The convolutions of AlexNet in two halves, with batch normalisation and two output layers; without the fully "
        "connected layers.",
    ),
    Entry(
        "rotation",
        "paper",
        CIFAR,
        None,
        "The net of four blocks of the [published code](https://github.com/gidariss/FeatureLearningRotNet), with its "
        "classifier.",
    ),
    Entry(
        "patch-position",
        "paper",
        PHOTOGRAPHS,
        None,
        "Layer for layer the [published code](https://github.com/cdoersch/deepcontext); the biases that its batch "
        "normalisations remove (9,216) are not stored.",
    ),
    Entry(
        "jigsaw",
        "paper",
        _images_of(255),
        None,
        "Layer for layer the [published code](https://github.com/MehdiNoroozi/JigsawPuzzleSolver): 1,024 units for "
        "each tile of 64 pixels and 100 permutations. The network whose size the paper reports is below.",
    ),
    Entry("cpc", "paper", SOUND, None, "Five convolutions of 512 channels, a GRU of 256 cells, 12 maps of 512 × 256."),
    Entry(
        "cpc",
        "paper-image",
        IMAGENET_256,
        None,
        "The first three stages of ResNet-v2-101 without normalisation, and five maps of 1,024 × 1,024. The blocks of "
        "the PixelCNN are those of CPC v2.",
    ),
)

_CHARACTERS = {"width": 512, "heads": 2, "auxiliary": True}
_CHARACTERS_NOTE = (
    "The paper adds learned positions before every layer, here they are added once: {more} × 512 × 512 = "
    "{millions:.1f} M fewer. The classifiers of the intermediate layers are counted."
)
VARIANTS = (
    Entry(
        "transformer",
        "paper",
        COLOURS,
        Published(455e6, f"{IMAGE_GPT}, section 3.3"),
        "iGPT-M.",
        options={"width": 1024, "layers": 36, "heads": 8},
    ),
    Entry(
        "transformer",
        "paper",
        COLOURS,
        Published(1362e6, f"{IMAGE_GPT}, comparison of linear probes"),
        "iGPT-L.",
        options={"width": 1536, "layers": 48, "heads": 16},
    ),
    Entry(
        "transformer",
        None,
        BYTES,
        Published(44e6, XL),
        "12 layers of the character model of Al-Rfou et al. 2018. "
        + _CHARACTERS_NOTE.format(more=11, millions=11 * 512**2 / 1e6),
        missed=True,
        options=_CHARACTERS | {"layers": 12},
    ),
    Entry(
        "transformer",
        None,
        BYTES,
        Published(235e6, XL),
        "64 layers of the same. " + _CHARACTERS_NOTE.format(more=63, millions=63 * 512**2 / 1e6),
        missed=True,
        options=_CHARACTERS | {"layers": 64},
    ),
    Entry(
        "transformer-xl",
        "paper",
        ENWIK8,
        Published(277e6, XL),
        "The 24-layer model, 0.99 bits per character in the paper.",
        options={"width": 1024, "layers": 24, "hidden": 3072},
    ),
    Entry(
        "sparse-transformer",
        None,
        LONG_BYTES,
        Published(95e6, f"{SPARSE}, table 1"),
        "The model of enwik8.",
        options={"width": 512, "layers": 30, "heads": 8, "pattern": "fixed", "stride": 128, "summary": 32},
    ),
    Entry(
        "sparse-transformer",
        None,
        IMAGENET_64,
        Published(152e6, f"{SPARSE}, table 1"),
        "The model of ImageNet 64×64.",
        options={"width": 512, "layers": 48, "heads": 16, "stride": 128},
    ),
    Entry(
        "jigsaw",
        "paper",
        _images_of(300),
        Published(27.5e6, "[Noroozi, Favaro 2016](https://arxiv.org/abs/1603.09246)"),
        "The network that the paper compares with AlexNet, on whole cells of 75 pixels and with 1,000 classes, here in "
        "the place of permutations; 512 units for each cell.",
        options={"patch": 75, "hidden": (512, 4096), "permutations": 1000},
    ),
)


_HEAD = f"""# Parameters

<!-- Written by scripts/parameters.py; do not edit. -->

Number of parameters of each `paper` preset of the [autoregressive models](autoregressive.md), the [flows](flows.md),
the [latent-variable models](latent.md), the [energy models](energy.md) and the [self-supervised models](selfsup.md),
built for the data of the paper, beside the published number. A published number is that of the
publication in the last column;
where a paper does not report one, nothing is given. An *estimate* is one that authors of another paper made of the
model. Numbers are rounded in print, so ours should be within {TOLERANCE:.0%} of them; otherwise it is a **miss**, and
the reason is below. Weights that a mask sets to zero are counted if they are stored. `python scripts/parameters.py`
writes this page, and a test compares it.
"""


@contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """Move each parameter to the meta device as soon as a module registers it; buffers keep their values."""

    def moved(module: nn.Module, name: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
        if parameter is None or parameter.is_meta:
            return None  # as it is, so that shared parameters are counted once
        return nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)

    hook = hooks.register_module_parameter_registration_hook(moved)
    try:
        yield
    finally:
        hook.remove()


def count(entry: Entry) -> int:
    """Number of parameters of the model."""
    return _count(entry.model, entry.preset, entry.data[1], tuple(sorted(entry.options.items())))


@cache
def _count(model: str, preset: str | None, event: Event, options: tuple[tuple[str, Any], ...]) -> int:
    with _parameters_on_meta(), within(_AS_LARGE_AS_NEEDED):
        return unsup.create(model, event, preset=preset, **dict(options)).parameter_count


def paper_presets() -> list[tuple[str, str]]:
    """The models of the families, each with the presets named after papers."""
    found = ((name, preset) for family in FAMILIES for name in names(family) for preset in model_class(name).presets)
    return [(name, preset) for name, preset in found if preset.startswith("paper")]


def text() -> str:
    """The content of the page."""
    lines = [
        _HEAD,
        *_table(PRESETS),
        "",
        "## Other published models",
        "",
        "Sizes of papers that are not presets, reached by options:",
        "",
        *_table(VARIANTS, options=True),
        "",
        "## What the numbers contain",
        "",
        *(f"- {_name(entry)}: {entry.note}" for entry in PRESETS),
        *(f"- {_name(entry)}: {entry.note}" for entry in VARIANTS),
        "",
    ]
    return "\n".join(lines)


def _name(entry: Entry) -> str:
    preset = f" `{entry.preset}`" if entry.preset else ""
    layers = f" with {entry.options['layers']} layers" if "layers" in entry.options else ""
    return f"`{entry.model}`{preset}{layers}"


def _table(entries: tuple[Entry, ...], *, options: bool = False) -> list[str]:
    head = ["model", "preset", *(["options"] if options else []), "data", "ours", "published", "ratio", "read in"]
    rows = [head, ["---"] * (len(head) - 4) + ["---:"] * 3 + ["---"]]
    for entry in entries:
        ratio = "–"
        if entry.ratio is not None:
            ratio = f"{entry.ratio:.3f}" if entry.within_tolerance else f"{entry.ratio:.3f}, **miss**"
        published = entry.published
        given = [" ".join(f"{k}={v}" for k, v in entry.options.items())] if options else []
        rows.append(
            [
                f"`{entry.model}`",
                f"`{entry.preset}`" if entry.preset else "–",
                *given,
                entry.data[0],
                f"{entry.ours:,}",
                published.text if published else "–",
                ratio,
                published.source if published else "–",
            ]
        )
    return [f"| {' | '.join(cells)} |" for cells in rows]


if __name__ == "__main__":
    FILE.write_text(text())
