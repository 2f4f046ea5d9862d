"""Images of every depth and kind are read as another library reads them, and written so that they come back."""

from __future__ import annotations

import contextlib
import io
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageOps

from unsup.core.errors import InputError
from unsup.core.event import REAL, Event, Support
from unsup.data.form import form_from_json
from unsup.data.images import read_file
from unsup.data.load import load_data, load_examples, load_rows
from unsup.data.pixels import BROKEN, ImageForm, decode, quiet

RNG = np.random.default_rng(0)
imagecodecs = pytest.importorskip("imagecodecs")


def pixels_of(shape: tuple[int, ...], depth: str) -> np.ndarray:
    kind = np.dtype(depth)
    if kind.kind == "f":
        return RNG.normal(size=shape).astype(kind)
    limits = np.iinfo(kind)
    x = RNG.integers(limits.min, limits.max, shape, kind, endpoint=True)
    x.reshape(-1)[:2] = limits.min, limits.max
    return x


def expected_event(shape: tuple[int, int, int], depth: str) -> Event:
    supports = {
        "uint8": Support("ordinal", 256),
        "int8": Support("ordinal", 256, -128),
        "uint16": Support("ordinal", 65_536),
        "int16": Support("ordinal", 65_536, -32_768),
    }
    return Event(shape, supports.get(depth, REAL))


# ---------------------------------------------------------------- depths


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("depth", ["uint8", "uint16"])
def test_png_of_every_depth(depth: str, channels: int, tmp_path: Path) -> None:
    x = pixels_of((5, 7, 6, channels), depth)
    for i, one in enumerate(x):
        (tmp_path / f"{i}.png").write_bytes(imagecodecs.png_encode(one[..., 0] if channels == 1 else one))
    found = load_rows(tmp_path)
    colours = channels - (channels in (2, 4))
    assert found.event == expected_event((colours, 7, 6), depth)
    np.testing.assert_array_equal(found.tensor.numpy(), x[..., :colours].transpose(0, 3, 1, 2))
    assert found.tensor.dtype == found.event.dtype
    assert found.notes == (("dropped the transparency of 5 images",) if channels in (2, 4) else ())
    kept = load_rows(tmp_path, alpha="keep").tensor.numpy()
    if channels in (2, 4):
        grey = np.repeat(x[..., :1], 3, 3) if channels == 2 else x[..., :3]
        np.testing.assert_array_equal(kept, np.concatenate([grey, x[..., -1:]], 3).transpose(0, 3, 1, 2))
    else:
        np.testing.assert_array_equal(kept, found.tensor.numpy())
    for alpha, behind in (("white", np.iinfo(depth).max), ("black", 0)):
        mixed = load_rows(tmp_path, alpha=alpha).tensor.numpy().transpose(0, 2, 3, 1)
        if channels in (2, 4):
            share = x[..., -1:] / np.iinfo(depth).max
            np.testing.assert_array_equal(mixed, np.rint(share * x[..., :colours] + (1 - share) * behind))


@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(
    "depth", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float16", "float32", "float64"]
)
def test_tiff_of_every_depth(depth: str, channels: int, compression: str | None, tmp_path: Path) -> None:
    x = pixels_of((4, 7, 6, channels), depth)
    kind: dict[str, Any] = {"photometric": "minisblack"} if channels == 1 else {"photometric": "rgb"}
    if channels == 4:
        kind["extrasamples"] = ["unassalpha"]
    for i, one in enumerate(x):
        stored = one[..., 0] if channels == 1 else one
        tifffile.imwrite(tmp_path / f"{i}.tif", stored, compression=compression, **kind)
    tifffile.imwrite(tmp_path / "stack.tiff", x[..., 0] if channels == 1 else x, compression=compression, **kind)
    stack = load_rows(tmp_path / "stack.tiff", alpha="keep")
    (tmp_path / "stack.tiff").unlink()
    found = load_rows(tmp_path, alpha="keep")
    event = expected_event((channels, 7, 6), depth)
    assert found.event == event
    np.testing.assert_array_equal(found.tensor.numpy(), x.transpose(0, 3, 1, 2).astype(found.tensor.numpy().dtype))
    assert torch.equal(stack.tensor, found.tensor)
    assert stack.names == tuple(f"stack.tiff frame {i}" for i in range(4))


def test_integers_of_32_bits_keep_their_digits(tmp_path: Path) -> None:
    x = np.uint32(4_294_967_000) + np.arange(6 * 16, dtype=np.uint32).reshape(6, 4, 4)
    tifffile.imwrite(tmp_path / "a.tif", x, photometric="minisblack")
    found = load_rows(tmp_path / "a.tif")
    assert found.event.precision == "float64"
    np.testing.assert_array_equal(found.tensor[:, 0].numpy(), x.astype(float))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_pixels_that_are_not_finite_are_said(bad: float, tmp_path: Path) -> None:
    x = RNG.normal(size=(4, 4, 4)).astype(np.float32)
    for i in range(3):
        tifffile.imwrite(tmp_path / f"{i}.tif", x[i])
    x[3, 1, 1] = bad
    tifffile.imwrite(tmp_path / "bad.tif", x[3])
    assert load_rows(tmp_path).notes == (
        "skipped 1 of 4 images that cannot be read: bad.tif (it has pixels that are NaN or infinite)",
    )
    with pytest.raises(InputError, match=r"bad.tif cannot be read \(it has pixels that are NaN"):
        read_file(tmp_path / "bad.tif")


def test_channels_of_a_microscope(tmp_path: Path) -> None:
    x = pixels_of((5, 2, 8, 6), "uint16")
    tifffile.imwrite(tmp_path / "cells.tif", x, imagej=True, metadata={"axes": "TCYX"})
    found = load_rows(tmp_path / "cells.tif")
    assert found.event == expected_event((2, 8, 6), "uint16")
    np.testing.assert_array_equal(found.tensor.numpy(), x)
    data = load_data(tmp_path / "cells.tif")
    assert len(data.train) + len(data.validation) + len(data.test) == 5


def test_mixed_depths_and_channels_are_refused(tmp_path: Path) -> None:
    for i, depth in enumerate(("uint8", "uint16", "float32")):
        tifffile.imwrite(tmp_path / f"{i}.tif", pixels_of((4, 4), depth))
    with pytest.raises(InputError) as error:
        load_rows(tmp_path)
    assert str(error.value) == (
        f"the images in {tmp_path} have 3 types of pixels: float32 (2.tif), uint16 (1.tif), uint8 (0.tif); convert "
        "them to one, or remove some"
    )


def test_resizing_keeps_the_depth(tmp_path: Path) -> None:
    deep = np.full((9, 12, 3), 40_000, np.uint16)
    deep[:, :2] = 65_535
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(deep))
    found = read_file(tmp_path / "a.png", resize=3)
    assert found.event == expected_event((3, 3, 3), "uint16")
    assert found.tensor[0, :, 1, 2].unique().tolist() == [40_000]


# ---------------------------------------------------------------- orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["grey.png", "deep.png", "colour.jpg", "deep colour.png", "packed.tif", "deep.tif"])
def test_images_are_turned_as_viewers_turn_them(kind: str, orientation: int, tmp_path: Path) -> None:
    grey = np.arange(48, dtype=np.uint8).reshape(8, 6) * 5
    exif = Image.Exif()
    exif[0x0112] = orientation
    expected = np.array(_turned(Image.fromarray(grey), orientation)).astype(int)
    for i in range(3):
        path = tmp_path / f"{i}{Path(kind).suffix}"
        if kind == "grey.png":
            Image.fromarray(grey).save(path, exif=exif)
        elif kind == "deep.png":
            Image.fromarray(grey.astype(np.uint16) * 257).save(path, exif=exif)
        elif kind == "colour.jpg":
            Image.fromarray(np.stack([grey] * 3, 2)).save(path, exif=exif, quality=100, subsampling=0)
        elif kind == "deep colour.png":
            content = imagecodecs.png_encode(np.stack([grey.astype(np.uint16) * 257] * 3, 2))
            path.write_bytes(_with_exif(content, exif))
        else:
            deep, compression = kind == "deep.tif", "lzw" if kind == "packed.tif" else None
            stored = grey.astype(np.uint16) * 257 if deep else grey
            tifffile.imwrite(path, stored, compression=compression, extratags=[(0x0112, "H", 1, orientation, True)])
    found = load_rows(tmp_path)
    x = found.tensor.numpy()[0, 0].astype(int)
    assert x.shape == expected.shape
    assert abs((x // 257 if kind.startswith("deep") else x) - expected).max() <= (2 if kind.endswith("jpg") else 0)
    assert any("turned 3 images upright" in note for note in found.notes) == (orientation > 1)


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(file, "PNG", exif=exif)
    return ImageOps.exif_transpose(Image.open(file))


def _with_exif(png: bytes, exif: Image.Exif) -> bytes:
    """A PNG file with the EXIF chunk that Pillow writes."""
    file = io.BytesIO()
    Image.fromarray(np.zeros((1, 1), np.uint8)).save(file, "PNG", exif=exif)
    content = file.getvalue()
    at = content.index(b"eXIf") - 4
    size = int.from_bytes(content[at : at + 4], "big") + 12
    return png[:33] + content[at : at + size] + png[33:]


# ---------------------------------------------------------------- palettes and frames


@pytest.mark.parametrize("kind", ["png", "gif", "tif"])
@pytest.mark.parametrize("grey", [True, False])
def test_palettes_that_are_grey_stay_grey(kind: str, grey: bool, tmp_path: Path) -> None:
    for i in range(4):
        image = Image.fromarray(RNG.integers(0, 4, (6, 5), dtype=np.uint8), "P")
        image.putpalette([0, 0, 0, 90, 90, 90, 200, 200, 200, 255, 255, 255 if grey else 0])
        image.putpixel((0, 0), 3)
        image.save(tmp_path / f"{i}.{kind}")
    found = load_rows(tmp_path)
    assert found.event == expected_event((1 if grey else 3, 6, 5), "uint8")
    first = np.array(Image.open(tmp_path / "0.png" if kind == "png" else tmp_path / f"0.{kind}").convert("RGB"))
    np.testing.assert_array_equal(found.tensor[0].numpy(), first.transpose(2, 0, 1)[: 1 if grey else 3])


@pytest.mark.parametrize("kind", ["gif", "png", "webp", "tif"])
def test_every_frame_is_an_example(kind: str, tmp_path: Path) -> None:
    frames = [np.full((6, 5, 3), (10 * i, 40, 60), np.uint8) for i in range(1, 6)]
    frames = [np.where(RNG.random((6, 5, 1)) < 0.5, frame, 0).astype(np.uint8) for frame in frames]
    images = [Image.fromarray(frame) for frame in frames]
    extra: dict[str, Any] = {"lossless": True} if kind == "webp" else {}
    images[0].save(tmp_path / f"film.{kind}", save_all=True, append_images=images[1:], **extra)
    found = load_rows(tmp_path / f"film.{kind}")
    assert found.names == tuple(f"film.{kind} frame {i}" for i in range(5))
    np.testing.assert_array_equal(found.tensor.numpy(), np.stack(frames).transpose(0, 3, 1, 2))
    images[3].save(tmp_path / "still.png")
    folder = load_rows(tmp_path)
    assert list(folder.names) == [f"film.{kind} frame {i}" for i in range(5)] + ["still.png"]
    assert torch.equal(folder.tensor, torch.cat([found.tensor, found.tensor[3:4]]))
    assert any("1 file has several frames" in note for note in folder.notes)
    data = load_data(tmp_path / f"film.{kind}")
    assert data.split == "80/10/10 by a hash of each file or frame"
    one, _ = load_examples(tmp_path / f"film.{kind}", data.event)
    assert torch.equal(one, found.tensor)


def test_one_image_is_not_a_data_set(tmp_path: Path) -> None:
    for kind in ("png", "gif", "tif", "webp"):
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / f"a.{kind}")
        with pytest.raises(InputError, match="is one image; expected a folder of images"):
            load_data(tmp_path / f"a.{kind}")


def test_grey_and_colour_and_transparent_together(tmp_path: Path) -> None:
    grey, colour, clear = pixels_of((4, 4), "uint8"), pixels_of((4, 4, 3), "uint8"), pixels_of((4, 4, 4), "uint8")
    for order in ((grey, colour, clear), (clear, grey, colour), (colour, clear, grey)):
        for i, one in enumerate(order):
            Image.fromarray(one).save(tmp_path / f"{i}.png")
        dropped, kept = load_rows(tmp_path).tensor.numpy(), load_rows(tmp_path, alpha="keep").tensor.numpy()
        assert dropped.shape == (3, 3, 4, 4)
        assert kept.shape == (3, 4, 4, 4)
        np.testing.assert_array_equal(kept[:, :3], dropped)
        for i, one in enumerate(order):
            wide = np.repeat(one[None], 3, 0) if one.ndim == 2 else one.transpose(2, 0, 1)[:3]
            np.testing.assert_array_equal(dropped[i], wide)
            assert np.array_equal(kept[i, 3], one[..., 3] if one.shape[-1:] == (4,) and one.ndim == 3 else
                                  np.full((4, 4), 255))  # fmt: skip


# ---------------------------------------------------------------- damage


@pytest.mark.parametrize("kind", ["png", "deep.png", "tif", "deep.tif", "gif", "jpg"])
def test_damage_ends_in_an_expected_error(kind: str) -> None:
    file = io.BytesIO()
    x = pixels_of((9, 7, 3), "uint16" if kind.startswith("deep") else "uint8")
    if kind == "deep.png":
        file.write(imagecodecs.png_encode(x))
    elif kind == "deep.tif":
        tifffile.imwrite(file, np.stack([x, x]), photometric="rgb")
    else:
        Image.fromarray(x).save(file, {"png": "PNG", "tif": "TIFF", "gif": "GIF", "jpg": "JPEG"}[kind])
    content = file.getvalue()
    for _ in range(150):
        broken = bytearray(content)
        for at in RNG.integers(0, min(len(content), 400), 3):
            broken[at] = RNG.integers(256)
        for end in (len(content), RNG.integers(1, len(content))):
            with quiet(), contextlib.suppress(InputError, *BROKEN):
                decode(bytes(broken[:end]))


# ---------------------------------------------------------------- writing


@pytest.mark.parametrize("out", ["", ".tif"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("depth", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"])
@pytest.mark.parametrize("kind", ["png", "tif"])
@pytest.mark.parametrize("n", [3, 12])
def test_what_is_written_comes_back(kind: Any, depth: Any, channels: int, out: str, n: int, tmp_path: Path) -> None:
    x = torch.from_numpy(pixels_of((n, channels, 6, 5), depth).astype(depth if depth[0] == "f" else np.int64))
    form = ImageForm(depth, kind)
    target = tmp_path / f"samples{out}"
    for path, content in form.files(x, target):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    found = load_rows(target, alpha="keep")
    assert found.event == expected_event((channels, 6, 5), depth)
    assert torch.equal(found.tensor.to(x.dtype), x)
    assert found.form is not None
    assert form_from_json(found.form.to_json()) == found.form
    assert found.form.depth == depth
    again = {path.name: content for path, content in found.form.files(found.tensor, target)}
    assert again.keys() == {path.name for path in (target.iterdir() if target.is_dir() else [target])}
    if not out and channels in (1, 3, 4) and depth in ("uint8", "uint16"):
        assert all(name.endswith(kind) for name in again)


def test_other_suffixes_are_refused() -> None:
    with pytest.raises(InputError, match=r"has the suffix '.jpg', but images can be written to a folder"):
        list(ImageForm().files(torch.zeros(1, 1, 2, 2), Path("a.jpg")))


# ---------------------------------------------------------------- memory, and the order of files


@pytest.mark.parametrize("grey", [0, 40])
def test_memory_is_less_than_three_times_the_pixels(grey: int, tmp_path: Path) -> None:
    for i in range(120):
        Image.fromarray(pixels_of((64, 64) if i < grey else (64, 64, 3), "uint8")).save(tmp_path / f"{i:03d}.png")
    load_data(tmp_path)
    tracemalloc.start()
    try:
        data = load_data(tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    size = sum(split.x.numel() for split in (data.train, data.validation, data.test))
    assert size == 120 * 3 * 64 * 64
    assert peak < 3 * size
