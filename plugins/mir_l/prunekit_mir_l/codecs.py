"""Lossy image files as functions of pixels: JPEG, WebP and AVIF, through Pillow, by quality number or by bytes.

Pixels are uint8 of shape (height, width, 3), RGB, or (height, width, 1), grey. The same pixels and options give the
same bytes wherever the encoder's version is the same (``versions``).
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import PIL
from PIL import Image, features

from prunekit.errors import DataError, RecipeError, nearest
from prunekit_mir_l.images import Pixels, grey

CODECS = ("jpeg", "webp", "avif")
SUBSAMPLINGS = ("4:2:0", "4:2:2", "4:4:4")
_LIBRARIES = {"jpeg": ("libjpeg_turbo", "jpg"), "webp": ("webp",), "avif": ("avif",)}


def encode(pixels: Pixels, codec: str, quality: int, subsampling: str = "4:2:0") -> bytes:
    """Return the bytes of an image file.

    Args:
        pixels: the image; WebP and AVIF write a grey one as RGB.
        codec: among ``CODECS``.
        quality: 1..100, on the codec's own scale: the same number is not the same quality in two codecs.
        subsampling: of the chroma, among ``SUBSAMPLINGS``; WebP has 4:2:0 alone, and grey JPEG has no chroma.

    Raises:
        RecipeError: an option has no meaning, or Pillow was built without the codec.
        DataError: the image is too large for the format.

    Example:
        >>> flat = np.full((16, 16, 3), 90, np.uint8)
        >>> data = encode(flat, "jpeg", 10)
        >>> len(data) < 700, decode(data, channels=3).shape
        (True, (16, 16, 3))
    """
    refuse(codec, quality, subsampling)
    need(codec)
    options: dict[str, Any] = {"quality": quality}
    if codec == "webp":
        options["method"] = 4
    elif pixels.shape[2] == 3 or codec == "avif":
        options["subsampling"] = subsampling
    if codec == "avif":  # tiles, and so bytes, would follow from the number of processors
        options |= {"speed": 8, "max_threads": 1, "autotiling": False}
    image = _image(pixels, grey_is_kept=codec == "jpeg")
    file = io.BytesIO()
    try:
        image.save(file, codec, **options)
    except (OSError, ValueError) as error:
        size = f"{image.width}x{image.height}"
        raise DataError(f"an image of {size} pixels cannot be written as {codec}: {error}.") from error
    return file.getvalue()


def decode(data: bytes, *, channels: int) -> Pixels:
    """Return the pixels of an encoded image: uint8, shape (height, width, channels); one channel is the luma."""
    with Image.open(io.BytesIO(data)) as image:
        if channels == 1 and image.mode == "L":
            return np.array(image)[:, :, None]
        pixels: Pixels = np.array(image.convert("RGB"))
    return grey(pixels) if channels == 1 else pixels


def at_bytes(pixels: Pixels, codec: str, limit: int, subsampling: str = "4:2:0") -> int:
    """Return a quality whose file holds at most ``limit`` bytes while that of the next quality holds more.

    Found by bisection in eight files at most. Sizes rise with quality but for a few steps, so it is mostly the highest
    such quality. Where even the smallest file is larger it is 1, and where the largest fits it is 100.

    Args:
        pixels: the image.
        codec: among ``CODECS``.
        limit: bytes, e.g. those of another codec's file, for a comparison at the same size.
        subsampling: as for ``encode``.
    """
    if len(encode(pixels, codec, 100, subsampling)) <= limit:
        return 100
    fits, above = 1, 100
    while above - fits > 1:
        middle = (fits + above) // 2
        if len(encode(pixels, codec, middle, subsampling)) <= limit:
            fits = middle
        else:
            above = middle
    return fits


def refuse(codec: str, quality: int, subsampling: str = "4:2:0") -> None:
    """Raise RecipeError where no such file can be written anywhere, whatever Pillow is installed."""
    if codec not in CODECS:
        raise RecipeError(f"codec {codec!r} is unknown: {nearest(codec, CODECS)}")
    if quality != int(quality) or not 1 <= quality <= 100:
        raise RecipeError(f"quality is {quality}: give a whole number from 1 to 100.")
    if subsampling not in SUBSAMPLINGS:
        raise RecipeError(f"subsampling {subsampling!r} is unknown: {nearest(subsampling, SUBSAMPLINGS)}")
    if codec == "webp" and subsampling != "4:2:0":
        raise RecipeError(f"subsampling is {subsampling}, but lossy WebP has 4:2:0 alone: use that, or jpeg or avif.")


def need(codec: str) -> None:
    """Raise RecipeError where the installed Pillow was built without a codec."""
    if not _has(codec):
        since = "; AVIF comes with Pillow's own wheels from 11.3 on" if codec == "avif" else ""
        raise RecipeError(
            f"the installed Pillow {PIL.__version__} cannot write {codec.upper()}{since}: "
            "install another (`pip install --upgrade pillow`), or leave out what needs it (the task web)."
        )


def versions() -> dict[str, str]:
    """Return the version of Pillow and of each encoder it has: what the pixels of a compressed image depend on."""
    found = {"pillow": PIL.__version__}
    for codec in filter(_has, CODECS):
        known = ((library, version) for library in _LIBRARIES[codec] if (version := features.version(library)))
        library, version = next(known, (codec, "unknown"))
        found[library] = version
    return found


def _has(codec: str) -> bool:
    Image.init()
    return codec.upper() in Image.SAVE and codec.upper() in Image.OPEN


def _image(pixels: Pixels, *, grey_is_kept: bool) -> Image.Image:
    image = Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels))
    return image if grey_is_kept else image.convert("RGB")
