"""Decoded images in memory that loader workers share, so that an epoch does not decode each file again."""

from __future__ import annotations

import mmap
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt

from prunekit.errors import RecipeError
from prunekit_mir_l.images import Pixels, read_rgb, size_of
from prunekit_mir_l.items import Item

FULL = 0.99
"""Share of the limit from which on no more headers are read, in search of an image that would still fit."""

CHECK = 4
"""Bytes of a CRC-32."""


@final
@dataclass(frozen=True)
class Place:
    """Where an image lies in the shared memory once it was decoded: `CHECK` bytes of a checksum, then its pixels."""

    start: int
    height: int
    width: int

    @property
    def end(self) -> int:
        """The byte behind the last one."""
        return self.start + CHECK + 3 * self.height * self.width


@final
@dataclass(frozen=True)
class ImageCache:
    """Decoded images at places that were chosen beforehand, in memory that forked processes share.

    Whoever needs an image first decodes it for all. Two that do so at once write the same bytes, so there is no lock
    that a killed process could leave behind. Each process compares an image with its checksum the first time that it
    meets it there: processors are free to show one core's writes to another in any order. Where processes are not
    forked, pickling makes a copy with nothing in it yet, of `copies` parts of the limit each.

    Args:
        places: path -> place; other images are decoded each time.
        limit: bytes of decoded images to hold at most.
        copies: how many processes share the limit if each gets a copy.
    """

    places: Mapping[Path, Place]
    limit: int
    copies: int = 1
    _held: npt.NDArray[np.uint8] = field(init=False, repr=False, compare=False)
    _whole: set[Path] = field(default_factory=set, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        size = max((place.end for place in self.places.values()), default=1)
        try:
            memory = mmap.mmap(-1, size)  # anonymous: takes memory as it is written to, and leaves no file behind
        except OSError as error:
            raise RecipeError(f"{size / 2**20:.0f} MiB cannot be had ({error}): lower task.cache_mib.") from error
        object.__setattr__(self, "_held", np.frombuffer(memory, np.uint8))

    def __reduce__(self) -> tuple[Any, ...]:
        part = self.limit // self.copies
        return ImageCache, ({path: place for path, place in self.places.items() if place.end <= part}, part)

    def __deepcopy__(self, memo: dict[int, Any]) -> ImageCache:
        return self

    def read(self, path: Path) -> Pixels:
        """Return ``read_rgb(path)``, from memory where it is held; read-only there."""
        place = self.places.get(path)
        if place is None:
            return read_rgb(path)
        begin = place.start + CHECK
        pixels = self._held[begin : place.end].reshape(place.height, place.width, 3)
        check = self._held[place.start : begin]
        if path not in self._whole and not (check.any() and check.tobytes() == _checksum(pixels)):
            decoded = read_rgb(path)
            if decoded.shape != pixels.shape:  # the file was replaced meanwhile
                return decoded
            pixels[:] = decoded
            check[:] = np.frombuffer(_checksum(pixels), np.uint8)  # last: only now may others read
        self._whole.add(path)
        pixels.flags.writeable = False
        return pixels


def _checksum(pixels: Pixels) -> bytes:
    return zlib.crc32(pixels.data).to_bytes(CHECK)


def image_cache(items: Iterable[Item], limit: int, *, copies: int = 1) -> ImageCache:
    """Choose places for the images of a training set by their headers, those that are visited most often first.

    A full cache keeps what it has: an epoch visits each image in a new order, so dropping the oldest for the newest
    would find less, not more.

    Args:
        items: one for each visit in an epoch.
        limit: bytes to hold at most.
        copies: see `ImageCache`.

    Raises:
        DataError: a file is missing, or not an image.
        RecipeError: there is not so much memory.
    """
    visits = Counter(path for item in items for path in (item.target, item.input) if path)
    places: dict[Path, Place] = {}
    end = 0
    for path, _ in visits.most_common():
        if end >= FULL * limit:
            break
        place = Place(end, *size_of(path))
        if place.end <= limit:
            places[path], end = place, place.end
    return ImageCache(places, limit, copies)
