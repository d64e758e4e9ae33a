"""Slots: a number for every index of every axis that may shrink, and what is known of which of them go together.

Slot 0 stands for everything that stays. Two things are said of other slots: that two of them go or stay together, and
that rows of them must stay equally long, as a network's code has them in one rectangle (heads, halves, groups).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]


@final
@dataclass(frozen=True, eq=False)
class Track:
    """Slots along one or more axes of a value.

    Args:
        axes: of the value; the last of them shrinks, those before it are places (of a head, of a half) that stay.
        slots: one for each index along ``axes``, of their sizes in this order.
    """

    axes: tuple[int, ...]
    slots: Ids


Tracks = tuple[Track, ...]


@final
@dataclass(eq=False)
class Slots:
    """All slots of a network, and what is known of them."""

    count: int = 1
    pairs: list[tuple[Ids, Ids]] = field(default_factory=list)
    grids: list[Ids] = field(default_factory=list)
    proportions: list[list[Ids]] = field(default_factory=list)
    mixed: list[Ids] = field(default_factory=list)

    def new(self, size: int) -> Ids:
        """Return so many slots of which nothing is known."""
        self.count += size
        return np.arange(self.count - size, self.count)

    def couple(self, slots: Ids, others: Ids) -> None:
        """Note that the slots at the same places go or stay together; shapes are broadcast."""
        one, other = np.broadcast_arrays(slots, others)
        if one is not other:
            self.pairs.append((one.ravel(), other.ravel()))

    def keep(self, slots: Ids) -> None:
        """Note that all of these stay."""
        self.couple(slots.ravel(), np.zeros(1, dtype=np.int64))

    def rectangle(self, grid: Ids) -> None:
        """Note that the network's code has these in a rectangle: every row along the last axis stays as long."""
        if grid.ndim > 1 and grid.shape[-1] == 1:
            self.keep(grid)
        elif grid.ndim > 1:
            self.grids.append(grid)

    def in_proportion(self, rows: list[Ids]) -> None:
        """Note that of each of these rows the same share stays."""
        self.proportions.append(rows)

    def mix(self, slots: Ids) -> None:
        """Note that an operator mixes these so that a channel of zeros is not an absent one."""
        self.mixed.append(slots.ravel())

    def collapse(self, track: Track, axis: int) -> Track | None:
        """Let everything along an axis go together; return the track over the others, None if there is none."""
        place = track.axes.index(axis)
        first = track.slots.take([0], place)
        self.couple(track.slots, first)
        rest = tuple(each for each in track.axes if each != axis)
        return Track(rest, first.squeeze(place)) if rest else None

    def components(self) -> Ids:
        """Return for every slot the smallest slot that it goes or stays with."""
        root = np.arange(self.count)
        if not self.pairs:
            return root
        ones = np.concatenate([one for one, _ in self.pairs])
        others = np.concatenate([other for _, other in self.pairs])
        while True:
            low, high = np.minimum(root[ones], root[others]), np.maximum(root[ones], root[others])
            apart = low != high
            if not apart.any():
                return root
            ones, others = ones[apart], others[apart]
            np.minimum.at(root, high[apart], low[apart])
            while (root[root] != root).any():
                root = root[root]
