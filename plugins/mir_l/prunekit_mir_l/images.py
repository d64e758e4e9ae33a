"""Images as arrays: any file that a viewer shows becomes uint8 RGB of shape (height, width, 3), or a clear error."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from prunekit.errors import DataError

Pixels = npt.NDArray[np.uint8]
"""uint8 of shape (height, width, 3), RGB; or (height, width, 1), grey."""

Floats = npt.NDArray[np.float32]
"""The same shapes as float32, mostly in [0, 1]."""

SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".avif", ".tif", ".tiff")
TURNED = (5, 6, 7, 8)
"""EXIF orientations that exchange width and height."""

ORIENTATION = 0x0112
_UPRIGHT = dict(enumerate(map(Image.Transpose, (0, 3, 1, 5, 4, 6, 2)), start=2))  # EXIF orientation -> what undoes it
_BROKEN = (OSError, SyntaxError, ValueError, TypeError, EOFError, IndexError, struct.error)


def is_image(path: Path) -> bool:
    """Tell whether the file's name ends as an image's does, in upper or lower case; hidden files are none."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def files_below(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Yield the files below a folder by name, also in linked folders, but not again in one that leads back up.

    Raises:
        DataError: a folder cannot be read.
    """
    real = folder.resolve()
    if real in above:
        return
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as cause:
        raise DataError(f"the folder {folder} cannot be read ({cause.strerror}): mend or remove it.") from cause
    for entry in entries:
        if entry.is_dir():
            yield from files_below(folder / entry.name, (*above, real))
        elif entry.is_file():
            yield folder / entry.name


def half_of(target: Path) -> Path:
    """Return the hidden name under which a file is written before it is whole; it fits where the file's own does."""
    return target.with_name(f".{target.name[:40]}.half")


def read_rgb(path: Path | str) -> Pixels:
    """Read an image as a viewer would show it.

    Grey, palette and CMYK become RGB; 16 bits become 8 by their high byte; transparency is laid over white; the
    camera's rotation (EXIF) is applied; of several frames the first is taken. Colour profiles are not applied.

    Returns:
        uint8, shape (height, width, 3).

    Raises:
        DataError: there is no such file, or it is not a whole image.
    """
    with opened(path) as image:
        return np.asarray(as_rgb(upright(image)))


@contextmanager
def opened(path: Path | str) -> Iterator[Image.Image]:
    """Open an image file; whatever turns out to be wrong with it while it is used becomes a DataError that names it."""
    try:
        with Image.open(path) as image:
            yield image
    except (*_BROKEN, Image.DecompressionBombError) as error:
        raise DataError(_why(Path(path), error)) from error


def grey(pixels: Pixels) -> Pixels:
    """Return the luma of RGB pixels, ``round(0.299 R + 0.587 G + 0.114 B)`` (BT.601): uint8, shape (height, width, 1).

    Example:
        >>> grey(np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], dtype=np.uint8))[:, :, 0].tolist()
        [[76, 150, 29]]
    """
    return np.array(Image.fromarray(np.ascontiguousarray(pixels)).convert("L"))[:, :, None]


def size_of(path: Path | str) -> tuple[int, int]:
    """Return (height, width) as ``read_rgb`` would, from the file's header alone.

    Raises:
        DataError: there is no such file, or it is not an image.
    """
    with opened(path) as image:
        width, height = image.size
        # Pillow tells a rotated TIFF's size as it is shown, and that of every other file as it is stored.
        turned = image.format != "TIFF" and image.getexif().get(ORIENTATION) in TURNED
    return (width, height) if turned else (height, width)


def upright(image: Image.Image) -> Image.Image:
    """Return the image as the camera held it, by EXIF's orientation; other camera data, odd or not, plays no part."""
    image.load()  # which turns TIFF files by itself
    undo = _UPRIGHT.get(image.getexif().get(ORIENTATION, 1))
    return image if undo is None else image.transpose(undo)


def as_rgb(image: Image.Image) -> Image.Image:
    """Convert to RGB with 8 bits: 16 bits by their high byte, transparency laid over white; see ``read_rgb``."""
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip at 255
        return Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels have no agreed range")
    if image.has_transparency_data:
        clear = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")  # a copy takes as long as half of decoding


def _why(path: Path, error: BaseException) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{path}: no such file."
    reason = "not an image" if isinstance(error, UnidentifiedImageError) else str(error)
    return f"{path}: cannot be read ({reason}). The file may be truncated: fetch it again, or remove it."
