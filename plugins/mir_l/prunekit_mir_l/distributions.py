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

CLEAR = ("clear", "clean", "gt", "target", "norain", "groundtruth")
"""Names of folders that hold the clean images of pairs."""

GIVEN = ("input", "rain", "rainy", "hazy", "haze")
"""Names of folders that hold the degraded ones."""

MAPS = ("trans", "transmission", "depth")
"""Names of folders that hold what haze was made with: named as hazy images are, and none."""

KNOWN = {
    "bsd400": ("train", "denoise", "BSD400"),
    "wed": ("train", "denoise", "WED"),
    "waterloo": ("train", "denoise", "WED"),
    "explorationdatabase": ("train", "denoise", "WED"),
    "div2ktrain": ("train", "denoise", "DIV2K"),
    "div2kvalid": ("test", "denoise", "DIV2K"),
    "bsd68": ("test", "denoise", "BSD68"),
    "urban100": ("test", "denoise", "Urban100"),
    "kodak": ("test", "denoise", "Kodak24"),
    "live1": ("test", "jpeg", "LIVE1"),
    "classic5": ("test", "jpeg", "Classic5"),
    "rain100l": (None, "derain", "Rain100L"),
    "rain100h": (None, "derain", "Rain100H"),
    "raintrainl": ("train", "derain", "Rain100L"),
    "raintrainh": ("train", "derain", "Rain100H"),
    "raindatatestlight": ("test", "derain", "Rain100L"),
    "raindatatrainlight": ("train", "derain", "Rain100L"),
    "rain13k": ("train", "derain", "Rain13K"),
    "indoor": ("test", "dehaze", "SOTS_indoor"),
    "test100": ("test", "derain", "Test100"),
    "test1200": ("test", "derain", "Test1200"),
    "test2800": ("test", "derain", "Test2800"),
    "sots": ("test", "dehaze", "SOTS"),
    "ots": ("train", "dehaze", "OTS"),
    "its": ("train", "dehaze", "ITS"),
}
"""Part of a folder's name, letters and digits only -> split, task and set; innermost folder first, then the first."""


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
    """

    kind: str
    task: str
    units: tuple[Unit, ...]
    halves: tuple[Path, ...] = ()
    twins: tuple[tuple[Path, Path], ...] = ()


def known(folder: Path) -> tuple[str | None, str, str] | None:
    """Return split, task and set by a folder's name or the two around it; a split may be left open.

    Example:
        >>> known(Path("downloads/CBSD68/original"))
        ('test', 'denoise', 'BSD68')
        >>> known(Path("Rain100L/test"))
        ('test', 'derain', 'Rain100L')
        >>> known(Path("RESIDE/SOTS/indoor/hazy"))
        ('test', 'dehaze', 'SOTS_indoor')
    """
    plain = [re.sub(r"[^a-z0-9]", "", part.lower()) for part in reversed(folder.parts[-3:])]
    found = next((place for part in plain for key, place in KNOWN.items() if _is_called(part, key)), None)
    if found is None or found[0]:
        return found
    return next((s for part in plain for s in ("train", "test") if s in part), None), *found[1:]


def _is_called(part: str, key: str) -> bool:
    return part.startswith(key) or part.endswith(key) or (len(key) > 4 and key in part)  # "its" is in many words


def rain100(images: Sequence[Path]) -> Form:
    """Pairs ``rain-NNN`` and ``norain-NNN``, in one folder or in several (Rain100L, Rain100H)."""
    named = {path: re.fullmatch(r"(no)?rain-?(\w+)", path.stem, re.IGNORECASE) for path in images}
    clean = [(m[2], path) for path, m in named.items() if m and m[1]]
    rainy = [(m[2], path) for path, m in named.items() if m and not m[1]]
    return _paired("rain100", "derain", rainy, str, clean, "rainy")


def reside(images: Sequence[Path]) -> Form:
    """Many hazy ``NNNN_...`` to one clear ``NNNN``, which lies in a folder such as ``clear`` (RESIDE)."""
    clear = [(path.stem, path) for path in images if path.parent.name.lower() in CLEAR]
    rest = [path for path in images if path.parent.name.lower() not in (*CLEAR, *MAPS)]
    hazy = [(path.stem, path) for path in rest if re.match(r"\w+?_", path.stem)]
    return _paired("reside", "dehaze", hazy, lambda stem: stem.split("_")[0], clear, "hazy")


def pairs(images: Sequence[Path]) -> Form:
    """Pairs of one name in two folders, such as ``input`` and ``target`` (Rain13K and its test sets)."""
    clean = [(path.stem, path) for path in images if path.parent.name.lower() in CLEAR]
    given = [(path.stem, path) for path in images if path.parent.name.lower() in GIVEN]
    return _paired("pairs", "derain", given, str, clean, "rainy")


def clean(images: Sequence[Path]) -> Form:
    """Clean photographs, all of them."""
    return Form("clean", "denoise", tuple(Unit(((path, path.name),)) for path in images))


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


def sets_in(folder: Path) -> Iterator[Path]:
    """Yield the folders that are sets of their own: those inside that hold ``input`` beside ``target``, else itself."""
    inner = [child for child in sorted(folder.iterdir()) if child.is_dir() and _holds_pairs(child)]
    yield from inner if inner and not _holds_pairs(folder) else [folder]


def _holds_pairs(folder: Path) -> bool:
    names = {child.name.lower() for child in folder.iterdir() if child.is_dir()}
    return bool(names & set(CLEAR)) and bool(names & set(GIVEN))


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
