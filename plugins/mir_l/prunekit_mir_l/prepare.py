"""Bring a data set as it is handed out into the published layout, by links or copies."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import numpy as np
from PIL import Image

from prunekit.errors import DataError, nearest
from prunekit_mir_l.distributions import FORMS, PATTERNS, Form, Unit, images_in, listed, sets_in
from prunekit_mir_l.images import half_of, read_rgb, size_of
from prunekit_mir_l.known_sets import known
from prunekit_mir_l.manifest import read_manifest, sha256, write_manifest

Progress = Callable[[str, int, int], None]
"""Told what is being done, how many are done, and of how many."""


@final
@dataclass(frozen=True)
class Prepared:
    """What was done to one set.

    Args:
        kind: the form it was taken for.
        folder: where it lies now.
        made: files that were linked, copied or cut out.
        there: files that lay there already.
        cropped: clean images of which the centre was cut out, for their pair is smaller.
        halves: images without their other half.
        others: files that are no images.
        unlisted: names of the split list that are not in the source.
        small: images of low resolution, left out.
        broken: what is wrong with images whose header cannot be read; they and their pairs are left out.
    """

    kind: str
    folder: Path
    made: int
    there: int
    cropped: int
    halves: tuple[Path, ...]
    others: tuple[Path, ...]
    unlisted: tuple[str, ...]
    small: tuple[Path, ...]
    broken: tuple[str, ...]


def prepare(
    source: Path,
    out: Path,
    *,
    kind: str | None = None,
    split: str | None = None,
    name: str | None = None,
    copy: bool = False,
    only: Iterable[str] | None = None,
    progress: Progress = lambda what, done, of: None,
) -> Iterator[Prepared]:
    """Put each data set found in ``source`` into ``out`` in the published layout, and yield what was done.

    Nothing that exists is overwritten, and what is there already is left as it is, so that the same call finishes what
    was interrupted. Links are relative and symbolic: data sets often lie on another disk, which hard links
    cannot reach.
    Where a clean image is larger than its pair by the same border all around (SOTS indoor: 10 pixels), its centre is
    written as PNG instead. Every set gets a ``MANIFEST.json`` with sizes and hashes.

    Args:
        source: the folder as it was unpacked.
        out: the data folder; made where it is missing.
        kind: among ``FORMS``; None tells it from the files' names.
        split: ``"train"`` or ``"test"``; None tells it from the folders' names.
        name: the set's name; None tells it likewise.
        copy: copy the files instead of linking them; links of an earlier call become copies.
        only: names or stems of the files to take, see ``distributions.listed``; None takes all.
        progress: is told how far it is.

    Raises:
        DataError: nothing is recognised, a split or a name is missing, another file is in the way, or the system
            refuses.
    """
    _refuse(source, kind, split, name)
    source, out = source.resolve(), out.resolve()
    if out == source or out.is_relative_to(source):
        raise DataError(f"{out} lies in {source}, which is read: give a folder outside with -o.")
    folders, loose = sets_in(source)
    if name and len(folders) > 1:
        raise DataError(f"{source} holds {len(folders)} sets, {_few([f.name for f in folders])}: --name fits one only.")
    wanted = None if only is None else frozenset(only)
    left = [f"{source} holds images beside its sets: {_few([path.name for path in loose])}."] if loose else []
    unlisted = wanted or frozenset()
    for folder in folders:
        try:
            done = _prepare_set(folder, out, kind, split, name, copy, wanted, progress)
        except DataError as error:
            if len(folders) == 1:
                raise
            left.append(str(error))
        else:
            unlisted &= {*done.unlisted}
            yield replace(done, unlisted=()) if len(folders) > 1 else done
    if unlisted and len(folders) > 1:
        left.append(f"No set has these names of the list: {_few(sorted(unlisted))}.")
    if left:
        raise DataError("not all was prepared, and what is left is to be prepared by itself. " + " ".join(left))


def _refuse(source: Path, kind: str | None, split: str | None, name: str | None) -> None:
    """Raise DataError where an option has no meaning."""
    if not source.is_dir():
        raise DataError(f"{source} is not a folder: give the folder that the data set was unpacked into.")
    if split not in (None, "train", "test"):
        raise DataError(f"split {split!r} is unknown: {nearest(split, ('train', 'test'))}")
    if kind is not None and kind not in FORMS:
        raise DataError(f"kind {kind!r} is unknown: {nearest(kind, FORMS)} " + _kinds())
    if name is not None and (name != Path(name).name or name in ("", "..") or "\\" in name):
        raise DataError(f"name {name!r} is no name of a set: give one that a folder may have, without slashes.")


def _prepare_set(
    folder: Path,
    out: Path,
    kind: str | None,
    split: str | None,
    name: str | None,
    copy: bool,
    only: frozenset[str] | None,
    progress: Progress,
) -> Prepared:
    images, others = images_in(folder)
    form = _form(folder, images, kind)
    target = out / _place(form.units[0].files[0][0].parent, form, split, name)
    unlisted: tuple[str, ...] = ()
    if only is not None:
        units, unlisted = listed(form.units, only)
        form = replace(form, units=units, halves=())
    read_manifest(target)
    pieces, broken = [], []
    for unit in form.units:
        try:
            pieces.append(_fitted(unit))
        except DataError as error:
            broken.append(str(error))
    todo, there = _todo(pieces, target, copy)
    for done, (path, place, border) in enumerate(todo):
        _bring(path, target / place, border, copy)
        progress(f"{target.name}: files", done + 1, len(todo))
    origin = {place: str(path.relative_to(folder)) for unit in pieces for path, place, _ in unit}
    if origin:
        write_manifest(target, origin, kind=form.kind, progress=progress)
    counts = (len(todo), there, sum(bool(border) for unit in pieces for _, _, border in unit))
    return Prepared(form.kind, target, *counts, form.halves, tuple(others), unlisted, form.small, tuple(broken))


def _form(folder: Path, images: list[Path], kind: str | None) -> Form:
    """Return the form of a folder: the one that is asked for, or the first that finds something."""
    if not images:
        raise DataError(f"{folder} holds no images. " + _kinds())
    for name in [kind] if kind else FORMS:
        form = FORMS[name](images)
        if form.units and (kind or name == "clean" or len(form.units) >= len(form.halves)):
            _apart(form, folder)
            return form
        if form.small:
            raise DataError(f"{folder} holds images of low resolution (LR) by its name, no clean ones: give another.")
    seen = _few([str(path.relative_to(folder)) for path in images])
    raise DataError(f"{folder} is not of the kind {kind!r}: it holds {seen}. " + _kinds())


def _apart(form: Form, folder: Path) -> None:
    """Raise DataError where two images of a form have one name."""
    if form.twins:
        first, second = (path.relative_to(folder) for path in form.twins[0])
        raise DataError(
            f"{folder}: {first} and {second} have one name and would become one image ({len(form.twins)} such). If "
            "they are of two sets, prepare the folder of each by itself; else remove one."
        )


def _place(folder: Path, form: Form, split: str | None, name: str | None) -> Path:
    """Return split/task/SET of a form, from what is asked for and what the folders' names tell."""
    told_split, told_task, told_name = known(folder) or (None, form.task, None)
    fits = (told_task in ("denoise", "jpeg")) == (form.kind == "clean")
    split, name = split or (told_split if fits else None), name or (told_name if fits else None)
    task = told_task if fits else form.task
    if split is None or name is None:
        lack = " and ".join(o for o, v in (("--split train or test", split), ("--name SET", name)) if v is None)
        raise DataError(f"{folder} was taken for {form.kind}; its name does not tell all about the set: add {lack}.")
    return Path(split, task, name)


Piece = tuple[Path, str, int]
"""Source, place, and the border in pixels that is cut off all around; mostly 0."""


def _fitted(unit: Unit) -> list[Piece]:
    """Return the pieces of a unit; a clean image that is larger all around is to be cut."""
    if len(unit.files) == 1:
        return [(*unit.files[0], 0)]
    (clean, target), (given, place) = unit.files
    (height, width), (inner_height, inner_width) = size_of(clean), size_of(given)
    border, beside = (height - inner_height) // 2, width - inner_width
    if border > 0 and height - inner_height == beside == 2 * border:
        return [(clean, str(Path(target).with_suffix(".png")), border), (given, place, 0)]
    return [(clean, target, 0), (given, place, 0)]


def _todo(units: list[list[Piece]], target: Path, copy: bool) -> tuple[list[Piece], int]:
    """Return what is not there yet, or is a link and is to be a copy, and how many files are there.

    Raises:
        DataError: something else is in the way; nothing is written then.
    """
    todo, there, taken = [], 0, dict[str, Path]()
    for path, place, border in (piece for unit in units for piece in unit):
        if taken.setdefault(place, path) != path:
            raise DataError(f"{taken[place]} and {path} would both become {target / place}: prepare them one by one.")
        if not os.path.lexists(target / place):
            todo.append((path, place, border))
        elif not _same(path, target / place, border):
            raise DataError(
                f"{target / place} is there already and is not {path}: remove it, or choose another folder."
            )
        elif copy and (target / place).is_symlink():
            todo.append((path, place, border))
        else:
            there += 1
    return todo, there


def _same(source: Path, target: Path, border: int) -> bool:
    if not target.exists():  # a link to what was moved away
        return False
    if border:
        return np.array_equal(read_rgb(target), read_rgb(source)[border:-border, border:-border])
    return target.samefile(source) or (
        target.stat().st_size == source.stat().st_size and sha256(target) == sha256(source)
    )


def _bring(source: Path, target: Path, border: int, copy: bool) -> None:
    """Link, copy or cut out one file; what is half done has a hidden name."""
    half = half_of(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if border:
            Image.fromarray(read_rgb(source)[border:-border, border:-border]).save(half, format="PNG")
            half.rename(target)
        elif copy:
            shutil.copyfile(source, half)
            half.rename(target)
        else:
            target.symlink_to(os.path.relpath(source, target.parent))
    except OSError as cause:
        with contextlib.suppress(OSError):
            half.unlink(missing_ok=True)
        advice = "free some space" if copy or border else "give --copy where links are not possible"
        raise DataError(
            f"{target} cannot be made ({cause.strerror or cause}): {advice}; the same command continues."
        ) from cause


def _kinds() -> str:
    return "Kinds: " + "; ".join(f"{kind} ({pattern})" for kind, pattern in PATTERNS.items()) + "."


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
