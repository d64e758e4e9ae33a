"""``prunekit mir_l restore``: picture files and folders of them in, restored files of the same names out."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from prunekit.errors import DataError
from prunekit_mir_l.compare import Row, measured, side_by_side, targets_of, write_table
from prunekit_mir_l.images import is_image, read_rgb
from prunekit_mir_l.picture import open_picture, write_picture
from prunekit_mir_l.restorer import Restorer

TABLE = "metrics.csv"
Progress = Callable[[str, int, int], None]
"""Told which file is worked on, how many of its tiles are done, and of how many."""


@final
@dataclass(frozen=True)
class Told:
    """What to say of one file, and whether it failed."""

    text: str
    failed: bool = False


def plan(sources: Sequence[Path], out: Path, *, skip_existing: bool = False) -> dict[Path, Path]:
    """Return source -> output for files and for all images in folders, whose structure is kept; nothing is opened.

    Args:
        sources: files and folders.
        out: the folder to write to.
        skip_existing: leave out what is there already, instead of refusing.

    Raises:
        DataError: something is missing, two files would become one, or something would be overwritten.
    """
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file, not a folder; choose another with -o.")
    planned: dict[Path, Path] = {}
    for path, place in _named(sources, out):
        if (out / place) in planned.values():
            raise DataError(f"two images are called {place}; restore them into different folders.")
        planned[path] = out / place
    if not planned:
        if out.resolve() in [source.resolve() for source in sources]:
            raise DataError(f"{out} is read and would be written into: choose another folder with -o.")
        raise DataError(f"there are no images in {', '.join(map(str, sources))}.")
    there = [target for target in planned.values() if target.exists()]
    if there and not skip_existing:
        raise DataError(
            f"{there[0]} exists already and is left as it is; choose another folder with -o, or give --skip-existing."
        )
    return {path: target for path, target in planned.items() if target not in there}


def _named(sources: Sequence[Path], out: Path) -> Iterator[tuple[Path, Path]]:
    for source in sources:
        if source.is_dir():
            inside = (
                p for p in sorted(source.rglob("*")) if is_image(p) and not p.resolve().is_relative_to(out.resolve())
            )
            yield from ((path, path.relative_to(source)) for path in inside)
        elif source.is_file():
            yield source, Path(source.name)
        else:
            raise DataError(f"{source}: no such file.")


def restore_files(
    restorer: Restorer,
    planned: dict[Path, Path],
    *,
    compare: bool = False,
    targets: Path | None = None,
    table: Path | None = None,
    progress: Progress = lambda name, done, of: None,
) -> Iterator[Told]:
    """Restore each picture, write it, and yield what there is to say; one that fails does not stop the others.

    A network of grey images restores the luma (BT.601), and what is written is grey.

    Args:
        restorer: what restores.
        planned: source -> output, from ``plan``.
        compare: write a side-by-side beside each output, as ``NAME.compare.png``.
        targets: the clean images, to measure input and output against.
        table: where the measures go as CSV.
        progress: is told how far it is.

    Raises:
        DataError: there are no targets.
    """
    clean = targets_of(list(planned), targets) if targets else {}
    rows: list[Row] = []
    for source, target in planned.items():
        try:
            yield from _restored(restorer, source, target, compare, clean.get(source), rows, progress)
            if targets and source not in clean:
                yield Told(f"{source}: {targets} has no target of its name, so it is not measured.", failed=True)
        except DataError as error:
            yield Told(str(error), failed=True)
    if rows:
        yield from (Told(line) for line in _means(rows))
        if table:
            write_table(rows, table)


def _restored(
    restorer: Restorer,
    source: Path,
    target: Path,
    compare: bool,
    clean: Path | None,
    rows: list[Row],
    progress: Progress,
) -> Iterator[Told]:
    picture = open_picture(source)
    tiled = restorer.needs_tiles(*picture.pixels_hwc.shape[:2])
    made = restorer(picture.pixels_hwc, lambda done, of: progress(source.name, done, of))
    write_picture(picture.with_pixels(made), target)
    notes = [note for note in (picture.note, "in tiles" if tiled else "") if note]
    yield Told(f"{source} -> {target}" + (f" ({', '.join(notes)})" if notes else ""))
    if clean:
        found = list(measured(source.name, picture.pixels_hwc, made, clean))
        rows += found
        yield Told("    " + "; ".join(f"{metric} {a:.4g} -> {b:.4g}" for _, metric, a, b, _ in found))
    if compare:
        sheet = target.with_name(f"{target.name}.compare.png")
        if sheet.exists():
            raise DataError(f"{sheet} exists already and is left as it is.")
        images = {"input": picture.pixels_hwc, "restored": made}
        side_by_side(images | ({"target": read_rgb(clean)} if clean else {})).save(sheet)


def _means(rows: Sequence[Row]) -> Iterator[str]:
    for metric, protocol in dict.fromkeys((row[1], row[4]) for row in rows):
        pairs = [(a, b) for _, name, a, b, _ in rows if name == metric]
        before, after = (statistics.fmean(column) for column in zip(*pairs, strict=True))
        yield f"mean {metric} of {len(pairs)}: input {before:.4g}, restored {after:.4g} ({protocol})"
