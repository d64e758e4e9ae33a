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
            mean = np.bincount(units.groups[1:], weights=units.worth[1:], minlength=len(size)) / np.maximum(size, 1)
            key = units.worth / np.maximum(mean, np.finfo(float).tiny)[units.groups]
        else:
            key = (self._rank() + 0.5) / np.maximum(size, 1)[units.groups]
        return 1 + np.lexsort((np.arange(1, len(key)), key[1:]))

    def kept(self, count: int) -> NDArray[np.bool_]:
        """Return which units stay when the first ``count`` in the order go, as far as groups can spare them."""
        groups = self.units.groups
        size = np.bincount(groups[1:], minlength=groups.max() + 1)
        gone = np.bincount(groups[self.order()[:count]], minlength=len(size))
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
    low, high = 0, len(choice.units.worth) - 1
    if cost(choice.kept(0)) <= limit:
        return choice.kept(0)
    least = cost(choice.kept(high))
    if least > limit:
        raise Unmet(least)
    while high - low > 1:  # at low it is too much, at high it is not
        middle = (low + high) // 2
        if cost(choice.kept(middle)) <= limit:
            high = middle
        else:
            low = middle
    return choice.kept(high)


class Unmet(Exception):  # noqa: N818  (an answer to the caller, who knows what was asked)
    """Even the smallest network costs more than was asked; carries what that one costs."""

    def __init__(self, least: float) -> None:
        super().__init__(least)
        self.least = least
