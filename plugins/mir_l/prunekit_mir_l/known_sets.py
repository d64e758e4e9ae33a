"""The names under which restoration data sets are handed out, and what they tell of the set."""

from __future__ import annotations

import re
from pathlib import Path

KNOWN = {
    "bsd400": ("train", "denoise", "BSD400"),
    "cbsd400": ("train", "denoise", "BSD400"),
    "wed": ("train", "denoise", "WED"),
    "waterloo": ("train", "denoise", "WED"),
    "explorationdatabase": ("train", "denoise", "WED"),
    "div2ktrain": ("train", "denoise", "DIV2K"),
    "div2kvalid": ("test", "denoise", "DIV2K"),
    "bsd68": ("test", "denoise", "BSD68"),
    "cbsd68": ("test", "denoise", "BSD68"),
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
"""Words of a folder's name, written together -> split, task and set; innermost folder first, then the first."""

_COMMON = ("wed", "waterloo", "kodak", "indoor", "ots", "its")
_USUAL = {
    *("alpha", "beta", "v", "1", "2", "24", "train", "test", "hr", "images", "dataset", "reside", "sots"),
    *("exploration", "database", "lossless", "true", "color", "image", "suite"),
}
"""What may stand beside the names that are common words, too: ``OTS_ALPHA``, but not ``indoor_photos``."""

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")


def words(name: str) -> list[str]:
    """Return the words of a name in lower case.

    Example:
        >>> words("DIV2K_train_HR"), words("RainTrainL")
        (['div', '2', 'k', 'train', 'hr'], ['rain', 'train', 'l'])
    """
    return [word.lower() for word in _WORD.findall(name)]


def is_small(name: str) -> bool:
    """Tell whether a name says that it is of low resolution: ``img_001_SRF_2_LR``, ``DIV2K_train_LR_bicubic``."""
    return "lr" in words(name)


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
    parts = list(reversed(folder.parts[-3:]))
    found = next((place for part in parts if (place := known_name(part))), None)
    if found is None or found[0]:
        return found
    told = (s for part in parts for s in ("train", "test") if any(word.startswith(s) for word in words(part)))
    return next(told, None), *found[1:]


def known_name(name: str) -> tuple[str | None, str, str] | None:
    """Return split, task and set by one folder's name.

    Example:
        >>> known_name("OTS_ALPHA"), known_name("screenshots")
        (('train', 'dehaze', 'OTS'), None)
    """
    if is_small(name):
        return None
    return next((place for key, place in KNOWN.items() if _is_called(words(name), key)), None)


def _is_called(name: list[str], key: str) -> bool:
    """Tell whether words that follow each other make up the key, beside others that may stand there."""
    for start in range(len(name)):
        for end in range(start + 1, len(name) + 1):
            if "".join(name[start:end]) == key:
                return key not in _COMMON or {*name[:start], *name[end:]} <= _USUAL
    return False
