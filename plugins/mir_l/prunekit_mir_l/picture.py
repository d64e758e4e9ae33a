"""Picture files with what belongs to them: colour profile, EXIF, transparency; in and out."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
from PIL import ExifTags, Image

from prunekit.errors import DataError
from prunekit_mir_l.images import ORIENTATION, TURNED, Pixels, as_rgb, half_of, opened, upright

_QUALITY: dict[str, dict[str, Any]] = {
    **{jpeg: {"quality": 95, "subsampling": 0} for jpeg in (".jpg", ".jpeg", ".jfif")},
    ".webp": {"lossless": True, "exact": True},
    ".avif": {"quality": 100, "subsampling": "4:4:4"},
}
_LAYOUT = {*range(254, 260), 262, 266, 273, 274, *range(277, 280), 284, 317, *range(320, 326), 338, 339, 347}
_LAYOUT |= {*range(529, 533), 700, 34665, 34675, 34853}
_WIDTH, _HEIGHT = 0xA002, 0xA003  # PixelXDimension, PixelYDimension
_IN_COLOUR = ("RGB", "RGBA", "P", "PA", "RGBX")


@final
@dataclass(frozen=True)
class Picture:
    """An image as a viewer shows it, and what else its file holds.

    Args:
        pixels_hwc: RGB as stored, also where it is transparent; or one channel of grey.
        alpha_hw: opacity, where the file has it.
        profile: ICC colour profile; the pixels are in its colours. Dropped where the pixels were converted to RGB.
        exif: camera data, whose orientation was applied to the pixels and is 1 now.
        note: what was lost in reading, for people; mostly empty.
    """

    pixels_hwc: Pixels
    alpha_hw: Pixels | None = None
    profile: bytes | None = None
    exif: bytes | None = None
    note: str = ""

    def with_pixels(self, pixels_hwc: Pixels) -> Picture:
        """Return the same picture with other pixels; a profile of colours does not fit grey ones."""
        fits = pixels_hwc.shape[2] == self.pixels_hwc.shape[2]
        return replace(self, pixels_hwc=pixels_hwc, profile=self.profile if fits else None)


def open_picture(path: Path) -> Picture:
    """Read a picture: any mode becomes RGB with 8 bits, EXIF's rotation is applied, transparency is kept apart.

    Raises:
        DataError: there is no such file, or it is not a whole image.
    """
    with opened(path) as image:
        lost = [what for what, is_lost in _losses(image) if is_lost]
        exif, profile = None, image.info.get("icc_profile")
        try:
            exif = _camera_data(image)
        except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError, struct.error):
            lost.append("camera data left out: not as EXIF has it")
        turned = upright(image)
        if turned.has_transparency_data:
            rgba = np.array(turned.convert("RGBA"))
            pixels, alpha = rgba[:, :, :3], rgba[:, :, 3]
        else:
            pixels, alpha = np.array(as_rgb(turned)), None
        return Picture(
            np.ascontiguousarray(pixels),
            alpha,
            profile if image.mode in _IN_COLOUR else None,
            exif,
            ", ".join(lost),
        )


def _losses(image: Image.Image) -> Iterator[tuple[str, bool]]:
    """Yield what reading loses, and whether it does, of an image that is not decoded yet."""
    yield (
        "16 bits read as 8",
        image.mode.startswith("I") or any(";16" in str(part) for part in getattr(image, "tile", ())),
    )
    frames = getattr(image, "n_frames", 1)
    yield f"the first of {frames} frames", frames > 1


def _camera_data(image: Image.Image) -> bytes | None:
    """Return the EXIF data without the orientation, and without what describes a TIFF file's own layout."""
    held, kept = image.getexif(), Image.Exif()
    for tag, value in held.items():
        if tag not in _LAYOUT:
            kept[tag] = value
    for directory in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        if values := dict(held.get_ifd(directory)):
            if held.get(ORIENTATION) in TURNED and {_WIDTH, _HEIGHT} <= values.keys():
                values[_WIDTH], values[_HEIGHT] = values[_HEIGHT], values[_WIDTH]
            kept.get_ifd(directory).update(values)
            kept[directory] = values
    return kept.tobytes() if len(kept) else None


def write_picture(picture: Picture, target: Path) -> None:
    """Write a picture under a name that must be free, in the format of its suffix; the whole of it or nothing.

    JPEG is written at quality 95 without chroma subsampling, everything else as near to lossless as its format goes.

    Raises:
        DataError: the name is taken, the format cannot be written, or the system refuses.
    """
    suffix = target.suffix.lower()
    options = dict(_QUALITY.get(suffix, {}))
    options |= {k: v for k, v in (("icc_profile", picture.profile), ("exif", picture.exif)) if v}
    half = half_of(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        as_image(picture).save(half, format=Image.registered_extensions()[suffix], **options)
        if os.path.lexists(target):
            raise DataError(f"{target} exists already and is left as it is; choose another folder with -o.")
        half.rename(target)
    except (KeyError, OSError, ValueError) as cause:
        raise DataError(f"{target} cannot be written as {suffix or 'an image'}: {cause}.") from cause
    finally:
        with contextlib.suppress(OSError):  # a folder that is a file, for one
            half.unlink(missing_ok=True)


def as_image(picture: Picture) -> Image.Image:
    """Return the picture for Pillow: grey, RGB, or with its alpha channel."""
    pixels = picture.pixels_hwc
    image = Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)
    if picture.alpha_hw is not None:
        image.putalpha(Image.fromarray(picture.alpha_hw))
    return image
