"""Amounts: a share of the prunable weights, of the survivors to remove, or of the multiply-adds (no torch)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

from prunekit.errors import SelectionError


@final
@dataclass(frozen=True)
class Density:
    """Keep exactly ``round(value * prunable)`` entries; ``value`` is a share of the prunable ones, in (0, 1]."""

    value: float

    def __post_init__(self) -> None:
        if not 0 < self.value <= 1:
            raise SelectionError(f"density must be above 0 and at most 1, not {self.value:g}: it is the share kept.")

    def keep(self, kept: int, prunable: int) -> int:
        """Return how many of ``kept`` survivors stay, of ``prunable`` entries in all; never more than survive."""
        return min(kept, round(self.value * prunable))


@final
@dataclass(frozen=True)
class Rate:
    """Remove exactly ``ceil(value * (n - 1))`` of the n survivors; ``value`` in [0, 1).

    Reference:
        arXiv 2510.14463, published code: strictly below the ``value`` quantile (linear interpolation) of the
        survivors, which without ties is this count. With ties we still remove exactly this count.
    """

    value: float

    def __post_init__(self) -> None:
        if not 0 <= self.value < 1:
            raise SelectionError(f"rate must be at least 0 and below 1, not {self.value:g}: it is the share removed.")

    def keep(self, kept: int, prunable: int) -> int:
        """Return how many of ``kept`` survivors stay; ``prunable`` plays no part."""
        return kept - min(kept, max(0, math.ceil(self.value * (kept - 1))))


Amount = Density | Rate
"""What an allocation is asked for: a count of weights, in either way of saying it."""


@final
@dataclass(frozen=True)
class MacDensity:
    """Keep as many weights as there may be for at most ``value`` of the dense network's multiply-adds.

    Args:
        value: share of all multiply-adds that is left, in (0, 1].
        cost: name of each prunable parameter -> the dense network's multiply-adds by it, in one pass.
        other: multiply-adds by anything that is not prunable.

    Raises:
        SelectionError: the value is out of range, or those by what is not prunable are more.
    """

    value: float
    cost: Mapping[str, int] = field(repr=False)
    other: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.value <= 1:
            raise SelectionError(f"density must be above 0 and at most 1, not {self.value:g}: it is the share kept.")
        if self.limit < self.other:
            raise SelectionError(
                f"cannot keep {self.value:.2%} of {self.total:,} multiply-adds: those by no prunable parameter are "
                f"{self.other / self.total:.2%} ({self.other:,}). Ask for more, or include more parameters."
            )

    @property
    def total(self) -> int:
        """Multiply-adds of the dense network."""
        return self.other + sum(self.cost.values())

    @property
    def limit(self) -> float:
        """Multiply-adds that may be left."""
        return self.value * self.total

    def macs(self, counts: Mapping[str, tuple[int, int]]) -> float:
        """Return the multiply-adds that are left where counts of (kept, all) weights per tensor are."""
        return self.other + sum(self.cost.get(name, 0) * kept / max(1, size) for name, (kept, size) in counts.items())


Target = Amount | MacDensity
"""What a cut is asked for."""
