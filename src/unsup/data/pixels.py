"""Pixels of image files of every depth, and how pixels are written to such files."""

from __future__ import annotations

import io
import logging
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps
from torch import Tensor

from unsup.core.event import REAL, Support
from unsup.data.bounds import check_fits
from unsup.data.form import Form, numbered

Pixels = NDArray[Any]
"""The frames of one file ``(F, C, H, W)``: C is 1 (grey), 3 (RGB), 4 (RGB and alpha), or any number (TIFF only)."""
Alpha = Literal["drop", "keep", "white", "black"]
Depth = Literal["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]

BROKEN = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    ArithmeticError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""Exceptions of decoders about damaged files."""
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
_LARGE = 10**7  # pixels of an image whose size is checked before it is decoded
_ORIENTATION = 0x0112  # the tag, in EXIF and TIFF
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SUPPORTS = {
    "uint8": Support("ordinal", 256),
    "int8": Support("ordinal", 256, -128),
    "uint16": Support("ordinal", 65_536),
    "int16": Support("ordinal", 65_536, -32_768),
}
_TURNED: dict[int, Any] = {  # by the orientation of EXIF, for axes (..., H, W)
    2: lambda x: x[..., ::-1],
    3: lambda x: x[..., ::-1, ::-1],
    4: lambda x: x[..., ::-1, :],
    5: lambda x: x.swapaxes(-1, -2),
    6: lambda x: x.swapaxes(-1, -2)[..., ::-1],
    7: lambda x: x.swapaxes(-1, -2)[..., ::-1, ::-1],
    8: lambda x: x.swapaxes(-1, -2)[..., ::-1, :],
}


@dataclass(frozen=True)
class Picture:
    """The frames of one image file.

    Attributes:
        pixels: ``(F, C, H, W)``.
        transparent: whether the file has an alpha channel, or a transparent colour.
        turned: whether the file says that it should be turned, as done here.
    """

    pixels: Pixels
    transparent: bool = False
    turned: bool = False


@dataclass(frozen=True)
class ImageForm(Form):
    """Images are written as files of the same depth and type, or to one TIFF file with a page for each.

    Attributes:
        depth: type of a pixel in the file.
        file: type of the files in a folder. PNG for all types of 8 or 16 bits without losses, else TIFF.
    """

    name: ClassVar[str] = "images"
    suffixes: ClassVar[tuple[str, ...]] = ("", ".tif", ".tiff")

    depth: Depth = "uint8"
    file: Literal["png", "tif"] = "png"

    def files(self, x: Tensor, out: Path) -> Iterator[tuple[Path, bytes]]:
        self.check_suffix(out)
        pixels = _of_depth(x.detach().cpu().numpy(), np.dtype(self.depth))
        if out.suffix:
            yield out, _tiff(pixels)
            return
        as_png = self.file == "png" and pixels.shape[1] in (1, 3, 4) and self.depth in ("uint8", "uint16")
        for path, one in zip(numbered(out, len(pixels), ".png" if as_png else ".tif"), pixels, strict=True):
            yield path, _png(one) if as_png else _tiff(one[None])


def support_of(depth: np.dtype[Any]) -> Support:
    """Pixels of 8 and 16 bits are levels, others are real."""
    return _SUPPORTS.get(depth.name, REAL)


def form_of(depth: np.dtype[Any], *, tiff: bool) -> ImageForm:
    """The form of images of that type. Integers of more than 32 bits are written as floats that hold them."""
    names: dict[str, Depth] = {name: name for name in get_args(Depth)}
    kept = names.get(depth.name, "float64" if depth.kind != "f" else "float32")
    return ImageForm(kept, "tif" if tiff or kept not in ("uint8", "uint16") else "png")


def decode(content: bytes, *, resize: int | None = None, alpha: Alpha = "drop") -> Picture:
    """All frames of an image file, turned upright.

    Args:
        content: the file.
        resize: side in pixels after scaling and central cropping to a square.
        alpha: how transparency is handled: dropped, kept as a fourth channel, or a background behind it.

    Raises:
        InputError: the image does not fit into memory.
        ValueError: the file is damaged or of an unknown kind; decoders raise the other types of `BROKEN`, too.
    """
    if content.startswith(_TIFF):
        found = _decoded_tiff(content)
        if found is not None:
            pixels, opaque, turned = found
            return _finished(pixels, opaque, turned, resize, alpha)
    with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
        frames = _frame_count(image)
        count = image.width * image.height * frames
        if count > _LARGE:
            many = f"{frames} frames" if frames > 1 else "an image"
            size = f"{many} of {image.width:,} × {image.height:,} pixels"
            check_fits(8 * count, size, "remove it")
        if image.mode.startswith("I;16") or _is_deep_png(image):
            if frames > 1:
                raise ValueError("an animation of 16 bits; expected 8")
            return _finished(*_sixteen_bits(image, content), resize, alpha)
        turned = image.getexif().get(_ORIENTATION, 1) in _TURNED
        if image.mode in ("I", "F"):
            raise ValueError(f"pixels of mode {image.mode}; expected 8 or 16 bits")
        decoded = [_eight_bits(image, frame, turned, resize, alpha) for frame in range(frames)]
    if frames == 1:
        return Picture(decoded[0][0][None], decoded[0][1], turned)
    channels = max(len(pixels) for pixels, _ in decoded)
    pixels = np.stack([widened(pixels, channels) for pixels, _ in decoded])
    return Picture(pixels, any(transparent for _, transparent in decoded), turned)


def count_frames(path: Path) -> int:
    """The number of frames or pages of an image file; 1 if it cannot be read."""
    try:
        with path.open("rb") as file:
            is_tiff = file.read(4) in _TIFF
        with quiet():
            if is_tiff:
                return _pages(path)
            with Image.open(path, formats=_FORMATS) as image:
                return _frame_count(image)
    except BROKEN:
        return 1


def _frame_count(image: Image.Image) -> int:
    """The frames of an animation; a photograph may hold others for other purposes, which are not used."""
    return int(getattr(image, "n_frames", 1)) if image.format in ("GIF", "PNG", "WEBP", "TIFF") else 1


@contextmanager
def quiet() -> Iterator[None]:
    """Without what decoders say about large or damaged images, which are checked here.

    To be entered before threads are started, since they share the filters of warnings.
    """
    log = logging.getLogger("tifffile")
    disabled, log.disabled = log.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.disabled = disabled


def _of_depth(values: NDArray[Any], depth: np.dtype[Any]) -> Pixels:
    """Values as pixels of that type: integers are rounded, and limited to its range."""
    if depth.kind == "f" or values.dtype.kind != "f":
        return values.astype(depth)
    limits = np.iinfo(depth)
    return np.clip(np.rint(values.astype(np.float64)), limits.min, limits.max).astype(depth)


def widened(pixels: Pixels, channels: int) -> Pixels:
    """Images ``(..., C, H, W)`` with more channels: grey as RGB, RGB with an opaque alpha channel.

    >>> widened(np.array([[[7]]], np.uint8), 4)[:, 0, 0].tolist()
    [7, 7, 7, 255]
    """
    if pixels.shape[-3] == channels or channels == 1:
        return pixels
    if pixels.shape[-3] == 1:
        pixels = np.repeat(pixels, 3, -3)
    if channels == 4 and pixels.shape[-3] == 3:
        opaque = np.full((*pixels.shape[:-3], 1, *pixels.shape[-2:]), _top(pixels.dtype), pixels.dtype)
        pixels = np.concatenate([pixels, opaque], -3)
    return pixels


# --- Pillow: everything of 8 bits, and PNG of 16 bits ----------------------------------------------------------------


def _eight_bits(image: Image.Image, frame: int, turned: bool, resize: int | None, alpha: Alpha) -> tuple[Pixels, bool]:
    """One frame ``(C, H, W)``, and whether it is transparent. All of it is decoded, so that truncation is detected."""
    if frame:
        image.seek(frame)
    by_palette = image.mode in ("P", "PA") or image.format == "GIF"
    upright = ImageOps.exif_transpose(image) if turned else image
    transparent = upright.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in upright.info
    grey = upright.mode in ("1", "L", "LA", "La")
    keeps = transparent and alpha != "drop"
    mode = ("LA" if grey else "RGBA") if keeps else "L" if grey else "RGB"
    converted = upright if upright.mode == mode else upright.convert(mode)
    if resize is not None:
        converted = ImageOps.fit(converted, (resize, resize), Image.Resampling.BICUBIC)
    pixels = np.array(converted)
    pixels = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    opaque = pixels[-1:] if keeps else None
    colour = pixels[: len(pixels) - keeps]
    if by_palette and len(colour) == 3 and not (colour[:1] != colour[1:]).any():
        colour = colour[:1]
    return (colour if opaque is None else _composed(colour, opaque, alpha)), transparent


def _is_deep_png(image: ImageFile.ImageFile) -> bool:
    """Whether Pillow would reduce a PNG in colour from 16 to 8 bits."""
    return image.format == "PNG" and bool(image.tile) and str(image.tile[0].args).endswith(";16B")


def _sixteen_bits(image: ImageFile.ImageFile, content: bytes) -> tuple[Pixels, Pixels | None, bool]:
    """An image of 16 bits ``(1, C, H, W)``, its alpha channel, and whether it was turned.

    Pillow has no colours of 16 bits, but decodes either byte of them: ";16B" gives the high byte of each number in the
    file, and ";16L" the low byte. The four bytes of grey and alpha are those of RGBA.
    """
    kind = str(image.tile[0].args)
    if image.mode.startswith("I;16"):
        pixels = np.array(image).astype(np.uint16)[..., None]
    elif kind == "LA;16B":
        both = _as_stored(content, "RGBA").astype(np.uint16)
        pixels = both[..., 0::2] * 256 + both[..., 1::2]
    else:
        pixels = _as_stored(content, kind).astype(np.uint16) * 256 + _as_stored(content, kind[:-1] + "L")
    turn = image.getexif().get(_ORIENTATION, 1)
    pixels = _upright(pixels.transpose(2, 0, 1)[None], turn)
    opaque = pixels.shape[1] in (2, 4)
    return pixels[:, : pixels.shape[1] - opaque], pixels[:, -1:] if opaque else None, turn in _TURNED


def _as_stored(content: bytes, kind: str) -> Pixels:
    with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
        image.tile = [image.tile[0]._replace(args=kind)]
        return np.array(image)


# --- tifffile: TIFF of any depth -------------------------------------------------------------------------------------


def _decoded_tiff(content: bytes) -> tuple[Pixels, Pixels | None, bool] | None:
    """The pages of a TIFF, their alpha channel, and whether they were turned; None if Pillow should read them."""
    import tifffile

    with tifffile.TiffFile(io.BytesIO(content)) as file:
        page = file.pages.first
        plain = page.photometric in (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB)
        packed = page.compression not in (
            tifffile.COMPRESSION.NONE,
            tifffile.COMPRESSION.ADOBE_DEFLATE,
            tifffile.COMPRESSION.DEFLATE,
        )
        levels = page.bitspersample == 8 and page.sampleformat == tifffile.SAMPLEFORMAT.UINT
        if page.bitspersample < 8 or (levels and (packed or not plain)):
            return None
        if not plain:
            raise ValueError(
                f"{page.bitspersample} bits of {tifffile.PHOTOMETRIC(page.photometric).name}; expected grey or RGB"
            )
        size = sum(series.size * series.dtype.itemsize for series in file.series)
        if size > _LARGE:
            check_fits(3 * size, f"an image of {size:,} bytes", "remove it")
        turn = page.tags.valueof(_ORIENTATION, 1)
        try:
            frames = [_frames(series) for series in file.series]
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            raise ValueError(
                f"compressed by {tifffile.COMPRESSION(page.compression).name}: pip install 'unsup[images]' reads it"
            ) from error
        if len({(found.shape[1:], found.dtype) for found in frames}) > 1:
            shapes = sorted({f"{found.shape[1]}×{found.shape[2]}×{found.shape[3]} {found.dtype}" for found in frames})
            raise ValueError(f"its pages differ ({', '.join(shapes)}); expected one size and type")
        pixels = np.concatenate(frames)
        opaque = len(page.extrasamples) == 1 and page.extrasamples[0] in (
            tifffile.EXTRASAMPLE.ASSOCALPHA,
            tifffile.EXTRASAMPLE.UNASSALPHA,
        )
    if pixels.dtype.kind not in "uif" or pixels.dtype.itemsize > 8:
        raise ValueError(f"pixels of type {pixels.dtype}; expected integers or floats")
    if pixels.dtype == np.float16:
        pixels = pixels.astype(np.float32)
    pixels = _upright(pixels, turn)
    opaque = opaque and pixels.shape[1] in (2, 4)
    return pixels[:, : pixels.shape[1] - opaque], pixels[:, -1:] if opaque else None, turn in _TURNED


def _frames(series: Any) -> Pixels:
    """The images of a series of pages ``(F, C, H, W)``: its axes are samples (S), channels (C), Y, X and others."""
    axes = series.axes
    if not {"Y", "X"} <= set(axes):
        raise ValueError(f"its axes are {axes}; expected images with axes Y and X")
    pixels = np.asarray(series.asarray()).astype(series.dtype.newbyteorder("="), copy=False)
    beside = [i for i, axis in enumerate(axes) if axis not in "CSYX"]
    channels = [axes.index(axis) for axis in "CS" if axis in axes]
    pixels = pixels.transpose(*beside, *channels, axes.index("Y"), axes.index("X"))
    height, width = pixels.shape[-2:]
    frames = int(np.prod(pixels.shape[: len(beside)]))
    return pixels.reshape(frames, -1, height, width)


def _pages(path: Path) -> int:
    import tifffile

    with tifffile.TiffFile(path) as file:
        shapes = [(series.axes, series.shape) for series in file.series]
    return sum(int(np.prod([n for axis, n in zip(*one, strict=True) if axis not in "CSYX"])) for one in shapes)


# --- after decoding --------------------------------------------------------------------------------------------------


def _upright(pixels: Pixels, orientation: Any) -> Pixels:
    turn = _TURNED.get(orientation)
    return pixels if turn is None else turn(pixels)


def _finished(pixels: Pixels, opaque: Pixels | None, turned: bool, resize: int | None, alpha: Alpha) -> Picture:
    """A picture of frames ``(F, C, H, W)`` that were not decoded by Pillow's own types."""
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise ValueError("it has pixels that are NaN or infinite")
    transparent = opaque is not None
    if resize is not None:
        pixels = _resized(pixels, resize)
        opaque = None if opaque is None else _resized(opaque, resize)
    if opaque is not None and alpha != "drop":
        pixels = _composed(pixels, opaque, alpha)
    return Picture(pixels, transparent, turned)


def _composed(colour: Pixels, opaque: Pixels, alpha: Alpha) -> Pixels:
    """Images with their alpha channel, or in front of a background."""
    if alpha == "keep":
        return np.concatenate([widened(colour, 3), opaque], -3)
    top = _top(colour.dtype)
    share = opaque.astype(np.float64) / top
    mixed = share * colour + (1 - share) * (top if alpha == "white" else 0)
    return (mixed if colour.dtype.kind == "f" else np.rint(mixed)).astype(colour.dtype)


def _top(depth: np.dtype[Any]) -> float:
    """The value of white, and of an opaque pixel."""
    return 1.0 if depth.kind == "f" else int(np.iinfo(depth).max)


def _resized(pixels: Pixels, side: int) -> Pixels:
    """Frames ``(F, C, H, W)`` scaled and cropped to a square, channel by channel."""
    shape = pixels.shape
    planes = pixels.reshape(-1, *shape[2:]).astype(np.float32)
    fitted = [ImageOps.fit(Image.fromarray(plane), (side, side), Image.Resampling.BICUBIC) for plane in planes]
    found = np.stack([np.array(plane) for plane in fitted]).reshape(*shape[:2], side, side)
    return _of_depth(found, pixels.dtype)


# --- writing ---------------------------------------------------------------------------------------------------------


def plain_pixels(content: bytes) -> bool:
    """Whether an image file that can be decoded has grey levels or colours of 8 or 16 bits, not a palette or bits."""
    if content.startswith(_TIFF):
        import tifffile

        with tifffile.TiffFile(io.BytesIO(content)) as file:
            page = file.pages.first
            plain = page.photometric in (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB)
            return plain and page.bitspersample in (8, 16)
    with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
        return image.mode in ("L", "RGB") or image.mode.startswith("I;16")


def encode(pixels: Pixels, suffix: str) -> bytes:
    """A file ``.png``, ``.bmp`` or ``.tif`` of an image ``(C, H, W)`` of 8 or 16 bits, without losses."""
    if suffix == ".png":
        return _png(pixels)
    if suffix != ".bmp":
        return _tiff(pixels[None])
    file = io.BytesIO()
    Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)).save(file, "BMP")
    return file.getvalue()


def _png(pixels: Pixels) -> bytes:
    """A PNG file of an image ``(C, H, W)`` of 8 or 16 bits."""
    rows = np.ascontiguousarray(pixels.transpose(1, 2, 0))
    file = io.BytesIO()
    if pixels.dtype == np.uint8 or len(pixels) == 1:
        Image.fromarray(rows[..., 0] if len(pixels) == 1 else rows).save(file, "PNG")
        return file.getvalue()
    # Pillow does not write colours of 16 bits: rows of big-endian numbers, each after the filter 0 (none).
    height, width = pixels.shape[1:]
    stored = rows.astype(">u2").view(np.uint8).reshape(height, -1)
    lines = np.concatenate([np.zeros((height, 1), np.uint8), stored], 1).tobytes()
    header = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[len(pixels)], 0, 0, 0)
    file.write(b"\x89PNG\r\n\x1a\n")
    for name, chunk in ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")):
        file.write(struct.pack(">I", len(chunk)) + name + chunk + struct.pack(">I", zlib.crc32(name + chunk)))
    return file.getvalue()


def _tiff(pixels: Pixels) -> bytes:
    """A TIFF file with a page for each image of ``(N, C, H, W)``."""
    import tifffile

    file, channels = io.BytesIO(), pixels.shape[1]
    if channels in (3, 4):
        extra: dict[str, Any] = {"extrasamples": ["unassalpha"]} if channels == 4 else {}
        stored, axes, kind = pixels.transpose(0, 2, 3, 1), "QYXS", "rgb"
    else:
        extra = {}
        stored, axes, kind = (pixels[:, 0], "QYX", "minisblack") if channels == 1 else (pixels, "QCYX", "minisblack")
    tifffile.imwrite(file, np.ascontiguousarray(stored), photometric=kind, metadata={"axes": axes}, **extra)
    return file.getvalue()
