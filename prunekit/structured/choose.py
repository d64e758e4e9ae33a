"""Choosing: which units go so that a network gets as small as was asked, found by trying."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from prunekit.errors import SelectionError
from prunekit.structured.slots import Ids
from prunekit.structured.units import Units

ACROSS = ("global", "local")
FINE = 0.99
"""A network that is smaller than this share of what it may be is worth another search."""


@final
@dataclass(frozen=True, eq=False)
class Choice:
    """An order in which units go.

    Args:
        units: all of them.
        across: ``"global"``: by worth as a share of the mean of a unit's group; ``"local"``: the same share of each.
        multiple: so many units of a group are kept, or a multiple of it, or all.
        least: fewest units of a group that are kept.
    """

    units: Units
    across: str
    multiple: int
    least: int

    def __post_init__(self) -> None:
        if self.across not in ACROSS:
            raise SelectionError(f"across must be {' or '.join(ACROSS)}, not {self.across!r}.")
        for name, value in (("multiple", self.multiple), ("least", self.least)):
            if value < 1:
                raise SelectionError(f"{name} must be at least 1, not {value}: it is a number of channels.")

    def order(self) -> Ids:
        """Return the units in the order in which they go, the first ones first."""
        units = self.units
        size = np.bincount(units.groups[1:], minlength=units.groups.max() + 1)
        if self.across == "global":
            worth = np.abs(units.worth[1:])  # a movement may be below zero
            mean = np.bincount(units.groups[1:], weights=worth, minlength=len(size)) / np.maximum(size, 1)
            key = units.worth / np.maximum(mean, np.finfo(float).tiny)[units.groups]
        else:
            key = (self._rank() + 0.5) / np.maximum(size, 1)[units.groups]
        return 1 + np.lexsort((np.arange(1, len(key)), key[1:]))

    def kept(self, going: Ids) -> NDArray[np.bool_]:
        """Return which units stay when of each group as many go as of these, as far as the group can spare them."""
        groups = self.units.groups
        size = np.bincount(groups[1:], minlength=groups.max() + 1)
        gone = np.bincount(groups[going], minlength=len(size))
        wanted = np.maximum(size - gone, self.least)
        wanted = np.minimum(size, -(-wanted // self.multiple) * self.multiple)
        stays = self._rank() >= (size - wanted)[groups]
        stays[0] = True
        found: NDArray[np.bool_] = stays
        return found

    def _rank(self) -> Ids:
        """Return each unit's place in its group, the least worth first."""
        groups, worth = self.units.groups, self.units.worth
        order = 1 + np.lexsort((np.arange(1, len(worth)), worth[1:], groups[1:]))
        starts = np.searchsorted(groups[order], groups[order])
        rank = np.zeros(len(worth), dtype=np.int64)
        rank[order] = np.arange(len(order)) - starts
        return rank


def fewest(choice: Choice, cost: Callable[[NDArray[np.bool_]], float], limit: float) -> NDArray[np.bool_]:
    """Return which units stay where as few go as bring the cost to the limit or below it.

    Args:
        choice: the order.
        cost: of a network with these units, e.g. its parameters; falls as units go.
        limit: what it may be.

    Raises:
        Unmet: even without all units that can go it is more.
    """
    order = choice.order()
    if cost(choice.kept(order[:0])) <= limit:
        return choice.kept(order[:0])
    least = cost(choice.kept(order))
    if least > limit:
        raise Unmet(least)
    gone = order[: _first(lambda count: cost(choice.kept(order[:count])) <= limit, len(order))]
    if cost(choice.kept(gone)) > FINE * limit:
        return choice.kept(gone)
    # The last one was a large step, say of a whole stream: with that taken first, fewer of the others have to go.
    large = choice.units.groups[gone] == choice.units.groups[gone[-1]]
    order = np.concatenate([gone[large], gone[~large]])
    return choice.kept(order[: _first(lambda count: cost(choice.kept(order[:count])) <= limit, len(order))])


def _first(fits: Callable[[int], bool], high: int) -> int:
    """Return the least number up to ``high`` that fits; the larger ones all do."""
    low = -1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


class Unmet(Exception):  # noqa: N818  (an answer to the caller, who knows what was asked)
    """Even the smallest network costs more than was asked; carries what that one costs."""

    def __init__(self, least: float) -> None:
        super().__init__(least)
        self.least = least
