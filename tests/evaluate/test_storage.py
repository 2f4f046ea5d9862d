"""Stored sizes: every file is decoded again, and the bytes are the files'."""

from __future__ import annotations

import io
import lzma
import math
import re

import numpy as np
import pytest
import torch
import zstandard
from PIL import Image

import unsup
from unsup.core.errors import InputError
from unsup.core.event import BINARY, REAL, Event, Support
from unsup.evaluate import storage
from unsup.evaluate.storage import implied_bytes, store, stored_sizes


def levels(*shape: int, low: int = 0, high: int = 256, seed: int = 0) -> torch.Tensor:
    """Smooth noise, so that codecs find something."""
    x = torch.rand(shape, generator=torch.Generator().manual_seed(seed)).cumsum(-1)
    return (low + x / x.max() * (high - low - 1)).round().long()


GREY, COLOUR = Event((1, 5, 7), Support("ordinal", 256)), Event((3, 6, 4), Support("ordinal", 256))
IMAGES = {
    "grey": (levels(11, 1, 5, 7).to(torch.uint8), GREY),
    "one": (levels(1, 1, 5, 7).to(torch.uint8), GREY),
    "colour": (levels(10, 3, 6, 4).to(torch.uint8), COLOUR),
    "bilevel": (levels(13, 1, 9, 5, high=2).to(torch.uint8), Event((1, 9, 5), BINARY)),
    "colour of two levels": (levels(5, 3, 4, 4, high=2).to(torch.uint8), Event((3, 4, 4), BINARY)),
    "shifted": (levels(6, 1, 4, 4, low=-3, high=14), Event((1, 4, 4), Support("ordinal", 17, low=-3))),
    "categories": (levels(6, 1, 4, 4, high=5).to(torch.uint8), Event((1, 4, 4), Support("nominal", 5))),
}


def pictures(files: tuple[bytes, ...]) -> list[np.ndarray]:
    return [np.asarray(Image.open(io.BytesIO(f))) for f in files]


def to_levels(image: np.ndarray, event: Event) -> np.ndarray:
    """A decoded picture as levels from 0, ``(C, H, W)``."""
    if image.dtype == bool:
        image = image.astype(np.uint8)
    if image.ndim == 3 and event.shape[0] == 1:  # WebP has no grey
        assert (image == image[..., :1]).all()
        image = image[..., 0]
    return image[None] if image.ndim == 2 else image.transpose(2, 0, 1)


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("side", [storage.WEBP_SIDE, 21], ids=["one sheet", "sheets of a few"])
def test_pictures_decode_to_the_examples(name, side, monkeypatch):
    monkeypatch.setattr(storage, "WEBP_SIDE", side)
    x, event = IMAGES[name]
    expected = x.numpy() - event.uniform.low
    _, height, width = event.shape
    found = {(s.codec, s.how.split(",")[0]): s.files for s in store(x, event) if s.codec in ("png", "webp")}
    assert len(found) == 4
    for (codec, how), files in found.items():
        cells = []
        for image in pictures(files):
            assert max(image.shape[:2]) <= max(side, 9)
            sheet = to_levels(image, event)
            assert all(f[:4] == {"png": b"\x89PNG", "webp": b"RIFF"}[codec] for f in files)
            cells += [
                sheet[:, top : top + height, left : left + width]
                for top in range(0, sheet.shape[1], height)
                for left in range(0, sheet.shape[2], width)
            ]
        assert len(files) == len(x) if how.startswith("one file") else len(files) <= len(x)
        if side > 21 and not how.startswith("one file"):
            assert (how, len(files)) == ("all examples in one image", 1)
        assert np.array_equal(np.stack(cells[: len(x)]), expected), (codec, how)
        assert not np.any(cells[len(x) :])  # empty places


MIXED = Event((4,), (Support("ordinal", 3), REAL, Support("ordinal", 1000, low=-500), Support("nominal", 300)))
STREAMS = {
    "pixels": (*IMAGES["grey"], ["uint8"]),
    "shifted": (*IMAGES["shifted"], ["int8"]),
    "tokens": (levels(9, 12, high=400), Event((12,), Support("nominal", 400), "sequence"), ["uint16"]),
    "reals": (torch.randn(9, 3, generator=torch.Generator().manual_seed(0)), Event((3,), REAL), ["float32"] * 3),
    "mixed": (
        torch.tensor([[0, 0.25, -500, 299], [2, -3.5, 499, 0], [1, 1e6, 7, 12]]),
        MIXED,
        ["uint8", "float32", "int16", "uint16"],
    ),
}


@pytest.mark.parametrize("name", STREAMS)
def test_streams_decode_to_the_examples(name):
    x, event, types = STREAMS[name]
    found = {s.codec: s for s in store(x, event)}
    for codec, decode in (("zstd", zstandard.ZstdDecompressor().decompress), ("xz", lzma.decompress)):
        (file,) = found[codec].files
        raw = decode(file)
        if event.layout == "vector":  # column by column
            columns, at = [], 0
            for kind in types:
                end = at + len(x) * np.dtype(kind).itemsize
                columns.append(np.frombuffer(raw[at:end], kind))
                at = end
            assert at == len(raw)
            assert np.array_equal(np.stack(columns, 1), x.numpy())
        else:
            assert np.array_equal(np.frombuffer(raw, types[0]).reshape(x.shape), x.numpy())
        assert set(re.findall(r"\w*(?:int|float)\d+", found[codec].how)) == set(types)
        assert "rounded" not in found[codec].how


def test_reals_that_float32_cannot_hold_are_said_to_be_rounded():
    x = torch.tensor([[0.1], [0.2]], dtype=torch.float64)
    (zstd, _) = store(x, Event((1,), REAL))
    assert "float32 (reals rounded to it)" in zstd.how
    raw = zstandard.ZstdDecompressor().decompress(zstd.files[0])
    assert np.array_equal(np.frombuffer(raw, "float32"), x[:, 0].float().numpy())


def test_bytes_are_those_of_the_files():
    x, event = IMAGES["colour"]
    for size, stored in zip(stored_sizes(x, event), store(x, event), strict=True):
        assert (size["codec"], size["how"]) == (stored.codec, stored.how)
        assert size["bytes"] == sum(map(len, stored.files))
        assert size["per_example"] == size["bytes"] / 10


def test_constant_images_shrink_and_noise_does_not():
    event = Event((1, 16, 16), Support("ordinal", 256))
    noise = torch.randint(0, 256, (64, 1, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    for flat, full in zip(stored_sizes(torch.full_like(noise, 9), event), stored_sizes(noise, event), strict=True):
        assert flat["per_example"] < 256 / 2
        assert 256 <= full["per_example"] < 256 + 130
    assert [s["codec"] for s in stored_sizes(noise, event)] == ["png", "png", "webp", "webp", "zstd", "xz"]


@pytest.mark.parametrize(
    "event",
    [Event((2, 4, 4), BINARY), Event((1, 4, 4), Support("ordinal", 257)), Event((1, 4, 4), REAL), Event((16,), BINARY)],
    ids=["two channels", "257 levels", "real", "vector"],
)
def test_what_is_no_picture_has_streams_only(event):
    x = torch.zeros(3, *event.shape, dtype=event.dtype)
    assert [s["codec"] for s in stored_sizes(x, event)] == ["zstd", "xz"]


def test_pictures_too_large_for_webp_have_png_alone(monkeypatch):
    monkeypatch.setattr(storage, "WEBP_SIDE", 6)
    assert [s["codec"] for s in stored_sizes(*IMAGES["grey"])] == ["png", "png", "zstd", "xz"]


def test_bilevel_pictures_take_a_bit_a_pixel():
    event = Event((1, 64, 64), BINARY)
    noise = torch.randint(0, 2, (4, 1, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    png = next(s for s in stored_sizes(noise, event) if s["codec"] == "png")
    assert 512 <= png["per_example"] < 700


def test_implied_bytes_of_a_uniform_model_are_the_raw_ones():
    assert implied_bytes(64 * math.log(256), 100) == pytest.approx(6400)
    assert implied_bytes(math.log(2), 8) == pytest.approx(1)


def test_zstd_does_not_beat_the_entropy_of_independent_bytes():
    """64 levels equally often and independent: 6 bits each is what a likelihood of 6 ln 2 nats implies."""
    x = torch.randint(0, 64, (2000, 10), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    least = implied_bytes(10 * 6 * math.log(2), 2000)
    assert all(least < s["bytes"] < 1.1 * least for s in stored_sizes(x, Event((10,), Support("ordinal", 64))))


def test_what_is_not_raw_data_is_refused():
    with pytest.raises(InputError, match="outside"):
        stored_sizes(torch.full((2, 1, 5, 7), 0.5), GREY)
    with pytest.raises(InputError, match="no examples"):
        stored_sizes(torch.zeros(0, 1, 5, 7), GREY)


def test_digits_take_less_together_than_one_by_one():
    data = unsup.load_data("digits")
    sizes = {(s["codec"], s["how"].split(",")[0]): s["bytes"] for s in stored_sizes(data.test.x, data.event)}
    for codec in ("png", "webp"):
        assert sizes[codec, "all examples in one image"] < sizes[codec, "one file per example"] / 2
    assert sizes["zstd", "one stream of uint8"] < 360 * 64 / 2
