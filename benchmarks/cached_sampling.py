"""Sampling with caches against one full pass for each entry, for every autoregressive model."""

from __future__ import annotations

from typing import Any

import torch

import unsup
from benchmarks.harness import Measured, Several, interleave
from unsup.nn.entries import EntryModel

_IMAGE = unsup.Event((1, 28, 28), unsup.Support("binary"))
_TEXT = unsup.Event((1024,), unsup.Support("nominal", 65), "sequence")
_SOUND = unsup.Event((8000,), unsup.Support("ordinal", 256), "sequence")

_OF_IMAGES = (
    "pixelcnn",
    "gated-pixelcnn",
    "pixelcnn++",
    "pixelsnail",
    "pixelrnn",
    "parallel-multiscale",
    "subscale",
    "wavenet",
    "image-transformer",
)
_OF_TEXT = ("transformer", "sparse-transformer", "transformer-xl", "rnn")


def _pair(name: str, event: unsup.Event, n: int, what: str, target: str, note: str = "", **options: Any) -> Measured:
    torch.manual_seed(0)  # initial parameters
    model = unsup.create(name, event, **options).eval()
    assert isinstance(model, EntryModel)

    def generator() -> torch.Generator:
        return torch.Generator().manual_seed(0)

    return interleave(
        f"{name} sampling, {n} × {what}",
        lambda: model.sample(n, generator=generator()),
        {"naive loop": lambda: model.sample_naive(n, generator=generator())},
        rounds=1,
        warmup=0,
        target=target,
        note=note,
    )


def cached_images() -> Several:
    """Models of images at their default sizes."""
    return Several([_pair(name, _IMAGE, 4, "28×28, default size", "≥ 20×") for name in _OF_IMAGES])


def cached_text() -> Several:
    """Models of sequences at their default sizes."""
    return Several([_pair(name, _TEXT, 1, "1,024 tokens, default size", "≥ 20×") for name in _OF_TEXT])


def cached_sound() -> Measured:
    """A small WaveNet: the naive loop makes 8,000 full passes."""
    return _pair(
        "wavenet",
        _SOUND,
        1,
        "8,000 samples of sound",
        "≥ 50×",
        "preset tiny, for the sake of the naive loop",
        preset="tiny",
    )
