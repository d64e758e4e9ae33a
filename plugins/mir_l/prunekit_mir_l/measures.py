"""How near restored pictures are to their targets: which target is whose, the measures, and their table."""

from __future__ import annotations

import contextlib
import csv
import functools
import os
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from prunekit.errors import DataError
from prunekit_mir_l.folders import stem_of
from prunekit_mir_l.images import Pixels, files_below, grey, half_of, is_image, read_rgb
from prunekit_mir_l.metrics import chosen, floats

SMALLEST = 11
"""Pixels a side that the metrics need."""

Row = tuple[str, str, float, float, str]
"""Image, metric, of the input, of the output, protocol."""

_HEADER = ("image", "metric", "input", "output", "protocol")


@final
@dataclass(frozen=True)
class Targets:
    """Clean images, found by the place of the degraded one: ``X_rainy.png`` and ``X_gt.png``, or the same name.

    Args:
        where: a folder of them, or the target of the only image.
    """

    where: Path

    def of(self, image: Path, place: Path) -> Path:
        """Return the target of an image: first by its place, then by its name anywhere, which must tell it.

        Args:
            image: the degraded one, which is never its own target.
            place: where it lies in the folder that is restored.

        Raises:
            DataError: there is none, or there are several.
        """
        if not self.where.is_dir():
            return self.where
        fit = [path for path in self._named.get(stem_of(image), ()) if _may_be_target(path, image)]
        beside = [path for path in fit if path.parent == (self.where / place).parent]
        for found in ([path for path in beside if path.name == place.name], beside, fit):
            if len(found) > 1:
                raise DataError(
                    f"{image}: {found[0]} and {found[1]} may both be its target, so it is not measured; put targets "
                    "where their images lie, folder by folder."
                )
            if found:
                return found[0]
        raise DataError(f"{image}: {self.where} has no target of its name, so it is not measured.")

    @functools.cached_property
    def _named(self) -> dict[str, list[Path]]:
        named: dict[str, list[Path]] = {}
        for path in filter(is_image, files_below(self.where)):
            named.setdefault(stem_of(path), []).append(path)
        return named


def _may_be_target(path: Path, image: Path) -> bool:
    bare = stem_of(image)
    return path.stem in (image.stem, bare, f"{bare}_gt") and path.resolve() != image.resolve()


def targets_in(where: Path, images: int) -> Targets:
    """Return the targets of so many images.

    Raises:
        DataError: there is no such folder, nor is it the target of the only image.
    """
    if not where.is_dir() and not (where.is_file() and images == 1):
        raise DataError(f"{where} is no folder of target images: give one with --metrics.")
    return Targets(where)


def measured(name: str, given: Pixels, restored: Pixels, target: Path) -> Iterator[Row]:
    """Yield every metric of one image, of the pixels as they are written; none where it is too small.

    Where the restored one is grey, all three are compared in grey, and the protocol says so.

    Raises:
        DataError: the target cannot be read, or has another size.
    """
    clean = read_rgb(target)
    if clean.shape[:2] != given.shape[:2]:
        sizes = [f"{pixels.shape[1]}x{pixels.shape[0]}" for pixels in (clean, given)]
        raise DataError(f"{target} has {sizes[0]} pixels, and {name} {sizes[1]}: nothing is measured.")
    in_grey = restored.shape[2] == 1
    if in_grey:
        given, clean = grey(given), grey(clean)
    for metric in chosen(in_grey=in_grey):
        if min(clean.shape[:2]) >= max(metric.side, SMALLEST):
            of_input, of_output = (metric(floats(pixels), floats(clean)) for pixels in (given, restored))
            yield name, metric.name, of_input, of_output, f"{metric.protocol}; output in 8 bits"


def in_words(rows: Sequence[Row], pixels: Pixels) -> str:
    """Return the measures of one image, or why there are none."""
    if rows:
        return "; ".join(f"{metric} {a:.4g} -> {b:.4g}" for _, metric, a, b, _ in rows)
    height, width = pixels.shape[:2]
    return f"not measured: {width}x{height} pixels, and the metrics need {SMALLEST}x{SMALLEST}"


def means(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the means of each metric, by protocol, in words."""
    for metric, protocol in dict.fromkeys((row[1], row[4]) for row in rows):
        pairs = [(a, b) for _, name, a, b, by in rows if (name, by) == (metric, protocol)]
        before, after = (statistics.fmean(column) for column in zip(*pairs, strict=True))
        yield f"mean {metric} of {len(pairs)}: input {before:.4g}, restored {after:.4g} ({protocol})"


def read_table(table: Path) -> list[Row]:
    """Return the rows of an earlier table; none where there is nothing.

    Raises:
        DataError: something else is there.
    """
    if not os.path.lexists(table):
        return []
    try:
        with table.open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        if tuple(header) != _HEADER:
            raise ValueError("other columns")
        return [(name, metric, float(a), float(b), protocol) for name, metric, a, b, protocol in rows]
    except (OSError, ValueError, csv.Error) as cause:
        raise DataError(
            f"{table} is no table that `restore --metrics` wrote, and is left as it is; move it, or choose another "
            "folder with -o."
        ) from cause


def write_table(rows: Sequence[Row], table: Path) -> None:
    """Write measures as CSV, in place of an earlier table of the same folder.

    Raises:
        DataError: the system refuses.
    """
    half = half_of(table)
    try:
        with half.open("w", newline="", encoding="utf-8") as file:
            lines = csv.writer(file)
            lines.writerow(_HEADER)
            lines.writerows((name, metric, f"{a:.6g}", f"{b:.6g}", protocol) for name, metric, a, b, protocol in rows)
        half.replace(table)
    except OSError as cause:
        with contextlib.suppress(OSError):
            half.unlink(missing_ok=True)
        raise DataError(f"{table} cannot be written ({cause.strerror}); the same command measures again.") from cause
