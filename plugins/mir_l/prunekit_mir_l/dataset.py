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
        seen = window.cut(self.cache.read(item.input)) if item.input else None
        given, target = _pair(item, window.cut(clean), seen, rng, window, self.in_grey)
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
    seen = None if given is None else window.cut(given)
    return _pair(item, window.cut(clean), seen, rng, window, in_grey)


def _pair(
    item: Item, clean: Pixels, given: Pixels | None, rng: np.random.Generator, window: Window, in_grey: bool
) -> tuple[Pixels, Pixels]:
    """Return (input, target) of one window, made where there is no input: rain and haze in colour, noise as seen."""
    target = grey(clean) if in_grey else clean
    if given is None and item.is_noise:
        return item.degraded(target, rng, window), target
    given = item.degraded(clean, rng, window) if given is None else given
    return grey(given) if in_grey else given, target


def as_tensor(pixels: Pixels) -> Tensor:
    """Turn (height, width, channels) into a tensor of shape (channels, height, width), of the same type."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
