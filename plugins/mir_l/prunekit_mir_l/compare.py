"""Pictures side by side, and how near they are to their targets."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from prunekit.errors import DataError
from prunekit_mir_l.folders import stem_of
from prunekit_mir_l.images import Pixels, is_image, read_rgb
from prunekit_mir_l.metrics import chosen, floats

WIDEST = 2000
"""Pixels a side-by-side is wide at most."""

_LABEL = 16
Row = tuple[str, str, float, float, str]
"""Image, metric, of the input, of the output, protocol."""


def side_by_side(images: Mapping[str, Pixels]) -> Image.Image:
    """Return images next to each other under their names, scaled to fit; below, their centres pixel by pixel.

    Args:
        images: name -> RGB of one size, or grey.
    """
    shown = {name: np.broadcast_to(pixels, (*pixels.shape[:2], 3)) for name, pixels in images.items()}
    height, width = next(iter(shown.values())).shape[:2]
    panel = max(1, min(width, WIDEST // len(shown)))
    tall = max(1, round(height * panel / width))
    centre = min(height, max(1, panel * 3 // 4)) if panel < width else 0
    sheet = Image.new("RGB", (panel * len(shown), _LABEL + tall + centre), "white")
    for i, (name, pixels) in enumerate(shown.items()):
        picture = Image.fromarray(np.ascontiguousarray(pixels))
        ImageDraw.Draw(sheet).text((i * panel + 4, 2), name, fill="black")
        sheet.paste(picture.resize((panel, tall), Image.Resampling.LANCZOS), (i * panel, _LABEL))
        if centre:
            left, top = (width - panel) // 2, (height - centre) // 2
            sheet.paste(picture.crop((left, top, left + panel, top + centre)), (i * panel, _LABEL + tall))
    return sheet


def targets_of(images: Sequence[Path], targets: Path) -> dict[Path, Path]:
    """Return the target of each image that has one, by name: ``X_rainy.png`` and ``X_gt.png``, or the same name.

    Args:
        images: the degraded ones.
        targets: the target of the only image, or a folder of targets.

    Raises:
        DataError: there is no such file or folder.
    """
    if targets.is_file() and len(images) == 1:
        return {images[0]: targets}
    if not targets.is_dir():
        raise DataError(f"{targets} is no folder of target images: give one with --metrics.")
    named = {stem_of(path): path for path in sorted(targets.rglob("*")) if is_image(path)}
    return {image: named[stem_of(image)] for image in images if stem_of(image) in named}


def measured(name: str, given: Pixels, restored: Pixels, target: Path) -> Iterator[Row]:
    """Yield every metric of one image, of the pixels as they are written.

    Raises:
        DataError: the target cannot be read, or has another size.
    """
    clean = read_rgb(target)
    if clean.shape[:2] != given.shape[:2]:
        sizes = [f"{pixels.shape[1]}x{pixels.shape[0]}" for pixels in (clean, given)]
        raise DataError(f"{target} has {sizes[0]} pixels, and {name} {sizes[1]}: nothing is measured.")
    shown = np.broadcast_to(restored, clean.shape)
    for metric in chosen():
        if min(clean.shape[:2]) >= max(metric.side, 11):
            of_input, of_output = (metric(floats(pixels), floats(clean)) for pixels in (given, shown))
            yield name, metric.name, of_input, of_output, f"{metric.protocol}; output in 8 bits"


def write_table(rows: Sequence[Row], target: Path) -> None:
    """Write measures as CSV, in place of an earlier table of the same folder."""
    half = target.with_name(f".{target.name}.half")
    with half.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("image", "metric", "input", "output", "protocol"))
        table.writerows((name, metric, f"{a:.6g}", f"{b:.6g}", protocol) for name, metric, a, b, protocol in rows)
    half.replace(target)
