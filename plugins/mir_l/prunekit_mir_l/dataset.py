"""Training crops and test images: every pixel a function of keys, none of what was drawn before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from prunekit.data import generator
from prunekit.errors import DataError
from prunekit_mir_l.cache import ImageCache
from prunekit_mir_l.degrade import Window, centre_window, random_window, turn
from prunekit_mir_l.images import Pixels, grey, read_rgb
from prunekit_mir_l.items import Item

TEST_SEED = 0
"""Seed of what test images are degraded with, whatever the run's seed: all runs are measured on the same images."""

AUGMENT = {"dihedral": range(8), "published": range(1, 8)}
"""Which symmetries of the square a crop may be turned by; published code never leaves one as it is."""


@final
@dataclass(frozen=True)
class Crops:
    """A training set: ``sample(epoch, index)`` is a function of its arguments and the seed.

    Args:
        items: one for each visit in an epoch.
        patch: side of the crops in pixels.
        seed: seed of crops, symmetries and degradations.
        augment: a key of ``AUGMENT``.
        cache: where decoded images are held.
        in_grey: whether images have one channel instead of three.
    """

    items: Sequence[Item]
    patch: int
    seed: int
    augment: str
    cache: ImageCache
    in_grey: bool = False

    def __len__(self) -> int:
        """Return the number of samples in an epoch."""
        return len(self.items)

    def sample(self, epoch: int, index: int) -> tuple[Tensor, Tensor]:
        """Return one (input, target) pair: uint8, shape (channels, patch, patch)."""
        item = self.items[index]
        rng = generator("crop", self.seed, epoch, index)
        clean = self.cache.read(item.target)
        window = random_window((clean.shape[0], clean.shape[1]), self.patch, rng)
        which = int(rng.choice(AUGMENT[self.augment]))
        seen = self.cache.read(item.input) if item.input else None
        given, target = _pair(item, clean, seen, rng, window, window.around(), self.in_grey)
        return as_tensor(turn(given, which)), as_tensor(turn(target, which))


def evaluation_pair(item: Item, *, limit: int | None = None, in_grey: bool = False) -> tuple[Pixels, Pixels]:
    """Return (input, target) of a test item, both uint8 of shape (height, width, channels).

    The centre is cropped to multiples of 16. What is made of the target is a function of (file name, task, test seed).

    Args:
        item: the item.
        limit: pixels that neither side exceeds, a multiple of 16; None for the whole centre, as published.
        in_grey: whether images have one channel instead of three.

    Raises:
        DataError: a file is unreadable, or a pair differs in size.
    """
    clean = read_rgb(item.target)
    window = centre_window((clean.shape[0], clean.shape[1]), limit=limit)
    given = read_rgb(item.input) if item.input else None
    if given is not None and given.shape != clean.shape:
        raise DataError(f"{item.input} differs in size from its target {item.target}.")
    rng = generator("test", item.target.name, item.task, TEST_SEED)
    whole = Window(0, 0, clean.shape[0], clean.shape[1], window.image)
    return _pair(item, clean, given, rng, window, whole, in_grey)


def _pair(
    item: Item,
    clean: Pixels,
    given: Pixels | None,
    rng: np.random.Generator,
    window: Window,
    outer: Window,
    in_grey: bool,
) -> tuple[Pixels, Pixels]:
    """Return (input, target) of one window of whole images.

    An input that is not there is made: noise and one JPEG file of what is seen, the rest in colour. Files are made of
    all that lies in ``outer``, for their blocks begin outside the window; noise, rain and haze are made of the window.
    """
    target = grey(window.cut(clean)) if in_grey else window.cut(clean)
    if given is None:
        outer = outer if item.is_file else window
        begun = outer.cut(clean)
        made = item.degraded(grey(begun) if in_grey and item.falls_on_what_is_seen else begun, rng, outer)
        seen = window.inside(outer).cut(made)
    else:
        seen = window.cut(given)
    return grey(seen) if in_grey and seen.shape[2] == 3 else seen, target


def as_tensor(pixels: Pixels) -> Tensor:
    """Turn (height, width, channels) into a tensor of shape (channels, height, width), of the same type."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
