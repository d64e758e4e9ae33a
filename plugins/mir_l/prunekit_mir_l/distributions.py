"""The forms in which restoration data sets are handed out, told by their files' names; no file is opened.

A form turns a folder into units, each an image or a pair with the names that its files get in the published layout.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import final

from prunekit_mir_l.images import files_below, is_image
from prunekit_mir_l.known_sets import is_small, known_name

CLEAR = ("clear", "clean", "gt", "target", "norain", "groundtruth")
"""Names of folders that hold the clean images of pairs."""

HAZY = ("hazy", "haze")
"""Names of folders that hold hazy images."""

GIVEN = ("input", "rain", "rainy", *HAZY)
"""Names of folders that hold degraded ones."""

MAPS = ("trans", "transmission", "depth")
"""Names of folders that hold what haze was made with: named as hazy images are, and none."""


@final
@dataclass(frozen=True)
class Unit:
    """One image, or a pair: its source files, and for each the place in the folder of its set.

    Args:
        files: (source, place) of the clean image, and of the degraded one after it in a pair.
    """

    files: tuple[tuple[Path, str], ...]


@final
@dataclass(frozen=True)
class Form:
    """What one form makes of a folder.

    Args:
        kind: its name.
        task: whose data it is.
        units: what is whole.
        halves: degraded or clean images without the other half.
        twins: images of one role and one name, which cannot be told apart.
        small: images of low resolution, which are not taken for clean ones.
    """

    kind: str
    task: str
    units: tuple[Unit, ...]
    halves: tuple[Path, ...] = ()
    twins: tuple[tuple[Path, Path], ...] = ()
    small: tuple[Path, ...] = ()


def rain100(images: Sequence[Path]) -> Form:
    """Pairs ``rain-NNN`` and ``norain-NNN``, in one folder or in several (Rain100L, Rain100H).

    In a folder such as ``rain`` beside one such as ``norain`` all are rainy, whatever they are called, also as ``x2``.
    """
    named = {path: re.fullmatch(r"(no)?rain-?(\w+?)(x\d)?", path.stem, re.IGNORECASE) for path in images}
    apart = any(_role(path) in CLEAR for path in images)
    clear: list[tuple[str, Path]] = []
    rainy: list[tuple[str, Path]] = []
    for path, found in named.items():
        if found:
            is_clear = _role(path) in CLEAR if apart and _role(path) else bool(found[1])
            (clear if is_clear else rainy).append((found[2], path))
    return _paired("rain100", "derain", rainy, str, clear, "rainy")


def reside(images: Sequence[Path]) -> Form:
    """Many hazy ``NNNN_...`` to one clear ``NNNN``, which lies in a folder such as ``clear`` (RESIDE)."""
    clear = [(path.stem, path) for path in images if _role(path) in CLEAR]
    rest = [path for path in images if _role(path) not in (*CLEAR, *MAPS)]
    hazy = [(path.stem, path) for path in rest if re.match(r"\w+?_", path.stem)]
    return _paired("reside", "dehaze", hazy, lambda stem: stem.split("_")[0], clear, "hazy")


def pairs(images: Sequence[Path]) -> Form:
    """Pairs of one name in two folders, such as ``input`` and ``target`` (Rain13K and its test sets)."""
    clear = [(path.stem, path) for path in images if _role(path) in CLEAR]
    given = [(path.stem, path) for path in images if _role(path) in GIVEN]
    if any(_role(path) in HAZY for _, path in given):
        return _paired("pairs", "dehaze", given, str, clear, "hazy")
    return _paired("pairs", "derain", given, str, clear, "rainy")


def clean(images: Sequence[Path]) -> Form:
    """Clean photographs, but those of low resolution: ``X_LR`` beside ``X_HR``, and what lies in a folder called LR."""
    named = {(path.parent, path.stem.upper()) for path in images}

    def in_small(folder: Path) -> bool:
        return is_small(folder.parent.name if re.fullmatch(r"[xX]?\d", folder.name) else folder.name)

    def beside_large(path: Path) -> bool:
        return is_small(path.stem) and (path.parent, path.stem.upper().removesuffix("LR") + "HR") in named

    small = [path for path in images if in_small(path.parent) or beside_large(path)]
    taken = sorted(set(images) - set(small))
    return Form("clean", "denoise", tuple(Unit(((path, path.name),)) for path in taken), small=tuple(small))


def _role(path: Path) -> str:
    """Return the name of the folder that tells what an image is, its own or the one around that; or nothing."""
    around = [folder.name.lower() for folder in path.parents[:2]]
    return next((name for name in around if name in (*CLEAR, *GIVEN, *MAPS)), "")


FORMS: dict[str, Callable[[Sequence[Path]], Form]] = {f.__name__: f for f in (rain100, pairs, reside, clean)}
"""In the order in which they are tried."""

PATTERNS = {
    "rain100": "rain-NNN.png with norain-NNN.png, in one folder or two",
    "pairs": "input/X.png with target/X.png (or gt/, clear/), one set or a folder of sets",
    "reside": "hazy/NNNN_*.jpg with clear/NNNN.jpg (or gt/)",
    "clean": "a folder of photographs: BSD400, BSD68, WED, Urban100, Kodak, DIV2K, LIVE1, Classic5, or any with --name",
}


def listed(units: Sequence[Unit], lines: Iterable[str]) -> tuple[tuple[Unit, ...], tuple[str, ...]]:
    """Return the units that the lines of a split list name, and the lines that name none.

    A line is a file's name or stem, with or without folders before it; of files of one name, those are meant whose own
    folders agree with the line's for longest, from the last on.
    """
    named: dict[str, list[tuple[Path, int]]] = {}
    for number, unit in enumerate(units):
        for source, _ in unit.files:
            for name in {source.name, source.stem}:
                named.setdefault(name, []).append((source, number))
    taken, unknown = set[int](), list[str]()
    for line in lines:
        asked = PurePosixPath(line.replace("\\", "/"))
        agreed = [(_agreeing(asked, source), number) for source, number in named.get(asked.name, ())]
        best = max(agreed, default=(0, 0))[0]
        taken |= {number for agreeing, number in agreed if agreeing == best}
        unknown += [] if agreed else [line]
    return tuple(units[number] for number in sorted(taken)), tuple(sorted(unknown))


def _agreeing(asked: PurePosixPath, source: Path) -> int:
    both = zip(reversed(asked.parent.parts), reversed(source.parent.parts), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], both))


def images_in(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the images below a folder, and the files that are none; hidden ones are left out."""
    files = [path for path in files_below(folder) if not path.name.startswith(".")]
    return [path for path in files if is_image(path)], [path for path in files if not is_image(path)]


def sets_in(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the folders that are sets of their own, and the images that lie in none of them.

    Where folders inside hold pairs (``input`` beside ``target``), or several have names of different sets, these and
    the folders beside them are the sets; else the folder itself is one.
    """
    if _holds_pairs(folder) or not _holds_sets(folder):
        return [folder], []
    found: list[Path] = []
    loose = [path for path in sorted(folder.iterdir()) if path.is_file() and is_image(path)]
    for child in _folders_in(folder):
        inner, beside = sets_in(child)
        found += [one for one in inner if images_in(one)[0]]
        loose += beside
    return (found, loose) if found else ([folder], [])


def _holds_sets(folder: Path) -> bool:
    children = _folders_in(folder)
    named = {known_name(child.name) for child in children} - {None}
    return len(named) > 1 or any(_holds_pairs(child) or _holds_sets(child) for child in children)


def _holds_pairs(folder: Path) -> bool:
    names = {child.name.lower() for child in _folders_in(folder)}
    return bool(names & set(CLEAR)) and bool(names & set(GIVEN))


def _folders_in(folder: Path) -> list[Path]:
    """Return the folders in a folder, without links that lead back up."""
    above = (folder.resolve(), *folder.resolve().parents)
    return sorted(child for child in folder.iterdir() if child.is_dir() and child.resolve() not in above)


_Named = Sequence[tuple[str, Path]]


def _paired(
    kind: str, task: str, given_images: _Named, key: Callable[[str], str], clean_images: _Named, degraded: str
) -> Form:
    """Join degraded images with the clean ones of their key; each pair gets a target of its own."""
    given, clean = dict(given_images), dict(clean_images)
    twins = (*_twins(given_images, given), *_twins(clean_images, clean))
    units = [
        Unit(
            (
                (clean[key(stem)], f"target/{stem}_gt{clean[key(stem)].suffix.lower()}"),
                (path, f"input/{stem}_{degraded}{path.suffix.lower()}"),
            )
        )
        for stem, path in sorted(given.items())
        if key(stem) in clean
    ]
    alone = [path for stem, path in given.items() if key(stem) not in clean]
    used = {key(stem) for stem in given}
    unused = [path for stem, path in clean.items() if stem not in used]
    return Form(kind, task, tuple(units), tuple(sorted(alone + unused)), twins)


def _twins(images: _Named, last: Mapping[str, Path]) -> Iterator[tuple[Path, Path]]:
    """Yield each image that another of its name follows, with the last of them."""
    return ((path, last[stem]) for stem, path in images if path != last[stem])
