"""``prunekit mir_l restore``: picture files and folders of them in, restored files of the same names out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

import numpy as np

from prunekit.errors import DataError
from prunekit_mir_l.compare import side_by_side
from prunekit_mir_l.images import Pixels, files_below, grey, is_image, read_rgb
from prunekit_mir_l.measures import Row, Targets, in_words, means, measured, read_table, targets_in, write_table
from prunekit_mir_l.picture import Picture, open_picture, write_picture
from prunekit_mir_l.restorer import Restorer

TABLE = "metrics.csv"
Progress = Callable[[str, int, int], None]
"""Told what is worked on (all pictures, or one file's tiles), how much is done, and of how much."""


@final
@dataclass(frozen=True)
class Told:
    """What to say of one file, and whether it failed."""

    text: str
    failed: bool = False


@final
@dataclass(frozen=True)
class Job:
    """One picture to restore.

    Args:
        source: its file.
        target: the file to write.
        place: where both lie in their folders.
    """

    source: Path
    target: Path
    place: Path

    @property
    def sheet(self) -> Path:
        """The side-by-side beside the target."""
        return self.target.with_name(f"{self.target.name}.compare.png")


def plan(sources: Sequence[Path], out: Path, *, compare: bool = False, skip_existing: bool = False) -> list[Job]:
    """Return a job for each file and for each image in folders, whose structure is kept; nothing is opened.

    Args:
        sources: files and folders.
        out: the folder to write to.
        compare: whether side-by-sides are written, too.
        skip_existing: leave alone what is there already, instead of refusing.

    Raises:
        DataError: something is missing, two files would become one, or something would be overwritten.
    """
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file, not a folder; choose another with -o.")
    jobs = [Job(path, out / place, place) for path, place in _named(sources, out)]
    if not jobs:
        if out.resolve() in [source.resolve() for source in sources]:
            raise DataError(f"{out} is read and would be written into: choose another folder with -o.")
        raise DataError(f"there are no images in {', '.join(map(str, sources))}.")
    taken: set[Path] = set()
    for path in (path for job in jobs for path in ((job.target, job.sheet) if compare else (job.target,))):
        if path in taken:
            raise DataError(f"two images are called {path.relative_to(out)}; restore them into different folders.")
        taken.add(path)
        if os.path.lexists(path) and not skip_existing:
            raise DataError(
                f"{path} exists already and is left as it is; choose another folder with -o, or give --skip-existing."
            )
    return jobs


def _named(sources: Sequence[Path], out: Path) -> Iterator[tuple[Path, Path]]:
    written = out.resolve()
    for source in sources:
        if source.is_dir():
            inside = (p for p in files_below(source) if is_image(p) and not p.resolve().is_relative_to(written))
            yield from ((path, path.relative_to(source)) for path in inside)
        elif source.is_file():
            yield source, Path(source.name)
        else:
            raise DataError(f"{source}: no such file.")


def restore_files(
    restorer: Restorer,
    jobs: Sequence[Job],
    *,
    compare: bool = False,
    targets: Path | None = None,
    table: Path | None = None,
    progress: Progress = lambda what, done, of: None,
) -> Iterator[Told]:
    """Restore each picture, write it, and yield what there is to say; one that fails does not stop the others.

    A network of grey images restores the luma (BT.601), and what is written is grey. A picture that is there already
    is left as it is; its measures and its side-by-side are made from it where they are missing.

    Args:
        restorer: what restores.
        jobs: from ``plan``.
        compare: write a side-by-side beside each output, as ``NAME.compare.png``.
        targets: the clean images, to measure input and output against.
        table: where the measures go as CSV; rows of other pictures that it has are kept.
        progress: is told how far it is.

    Raises:
        DataError: there are no targets, or the table is no such table.
    """
    clean = targets_in(targets, len(jobs)) if targets else None
    held = read_table(table) if table else []
    batch = _Batch(restorer, compare, clean, frozenset(row[0] for row in held), progress)
    for done, job in enumerate(jobs):
        progress("pictures", done, len(jobs))
        try:
            yield from batch.one(job)
        except DataError as error:
            yield Told(str(error), failed=True)
    progress("pictures", len(jobs), len(jobs))
    if targets:
        fresh = {row[0] for row in batch.rows}
        rows = [row for row in held if row[0] not in fresh] + batch.rows
        yield from map(Told, means(rows))
        if table and fresh:
            write_table(rows, table)


@final
@dataclass(frozen=True)
class _Batch:
    """What all pictures share; ``rows`` collects the measures."""

    restorer: Restorer
    compare: bool
    targets: Targets | None
    known: frozenset[str]
    progress: Progress
    rows: list[Row] = field(default_factory=list)

    def one(self, job: Job) -> Iterator[Told]:
        """Do what is missing of one picture, and tell it."""
        name, there = job.place.as_posix(), os.path.lexists(job.target)
        measure = self.targets is not None and not (there and name in self.known)
        show = self.compare and not os.path.lexists(job.sheet)
        if there and not measure and not show:
            return
        picture = open_picture(job.source)
        told = self._told(job, picture, there)
        made = self._earlier(job, picture) if there else self._restored(job, picture)
        yield told
        clean = None
        try:
            clean = self.targets.of(job.source, job.place) if self.targets else None
            if clean and measure:
                found = list(measured(name, picture.pixels_hwc, made, clean))
                self.rows.extend(found)
                yield Told("    " + in_words(found, made))
        except DataError as error:
            clean = None
            yield Told(str(error), failed=True)
        if show:
            images = {"input": picture.pixels_hwc, "restored": made}
            sheet = side_by_side(images | ({"target": read_rgb(clean)} if clean else {}))
            write_picture(Picture(np.array(sheet)), job.sheet)

    def _restored(self, job: Job, picture: Picture) -> Pixels:
        made = self.restorer(picture.pixels_hwc, lambda done, of: self.progress(str(job.place), done, of))
        write_picture(picture.with_pixels(made), job.target)
        return made

    def _earlier(self, job: Job, picture: Picture) -> Pixels:
        """Return what was restored before, as it is on disk."""
        made = open_picture(job.target).pixels_hwc
        if made.shape[:2] != picture.pixels_hwc.shape[:2]:
            raise DataError(f"{job.target} is there already and has another size than {job.source}: remove it.")
        return grey(made) if self.restorer.call.channels == 1 else made

    def _told(self, job: Job, picture: Picture, there: bool) -> Told:
        if there:
            return Told(f"{job.target}: there already")
        tiled = self.restorer.needs_tiles(*picture.pixels_hwc.shape[:2])
        notes = [note for note in (picture.note, "in tiles" if tiled else "") if note]
        return Told(f"{job.source} -> {job.target}" + (f" ({', '.join(notes)})" if notes else ""))
