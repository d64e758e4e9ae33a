"""Differences paired over items and seeds, their intervals, and what they decide."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
from numpy.typing import NDArray

from prunekit.errors import PruneKitError

Verdict = Literal["yes", "no", "undecided"]


@final
@dataclass(frozen=True)
class Difference:
    """A mean difference and half of its 95 % interval, in the metric's unit; ``half`` is inf where none can be had."""

    mean: float
    half: float
    seeds: int
    items: int

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return self.mean - self.half

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return self.mean + self.half

    def oriented(self, higher: bool) -> Difference:
        """Return it positive where it is better, in a metric whose higher or lower values are."""
        return self if higher else Difference(-self.mean, self.half, self.seeds, self.items)


def paired(mine: Mapping[tuple[int, str], float], other: Mapping[tuple[int, str], float]) -> Difference:
    """Compare two arms on the items and the seeds that both have.

    The same items are measured with every seed, so neither all pairs nor seeds alone are independent: the mean's
    variance is taken as that of the seeds' means over the seeds plus that of the items' means over the items, with
    Satterthwaite's degrees of freedom. What seeds and items share of the noise is counted twice, so the interval is
    rather too wide than too narrow.

    Args:
        mine, other: (seed, item) -> value.

    Returns:
        ``mine - other``; infinitely uncertain with fewer than two seeds or items.

    Raises:
        ValueError: the arms share no (seed, item).
        PruneKitError: scipy is missing.

    Example:
        >>> a = {(seed, item): 1.0 + 0.1 * seed + delta for seed in range(3) for item, delta in [("a", 0), ("b", 0.2)]}
        >>> b = {key: 0.0 for key in a}
        >>> found = paired(a, b)
        >>> round(found.mean, 2), found.seeds, found.items
        (1.2, 3, 2)

    Reference:
        Owen 2007 (The pigeonhole bootstrap) on means over two crossed factors; Satterthwaite 1946.
    """
    seeds = sorted({seed for seed, _ in mine} & {seed for seed, _ in other})
    items = sorted({item for _, item in mine} & {item for _, item in other})
    keys = [(seed, item) for seed in seeds for item in items]
    missing = [key for key in keys if key not in mine or key not in other]
    if not keys or missing:
        raise ValueError(f"the arms do not share {missing[0] if missing else 'any item'}")
    gaps = np.array([mine[key] - other[key] for key in keys]).reshape(len(seeds), len(items))
    mean = float(gaps.mean())
    if min(gaps.shape) < 2:
        return Difference(mean, math.inf, *gaps.shape)
    return Difference(mean, _half(gaps), *gaps.shape)


def _half(gaps: NDArray[np.float64]) -> float:
    try:
        from scipy.stats import t
    except ImportError as cause:
        raise PruneKitError('intervals need scipy: pip install "prunekit[report]".') from cause
    parts = [(gaps.mean(1 - axis).var(ddof=1) / gaps.shape[axis], gaps.shape[axis] - 1) for axis in (0, 1)]
    variance = sum(part for part, _ in parts)
    if variance == 0:
        return 0.0
    freedom = variance**2 / sum(part**2 / degrees for part, degrees in parts)
    return float(t.ppf(0.975, freedom) * math.sqrt(variance))


def not_worse(difference: Difference, margin: float) -> Verdict:
    """Decide whether an arm is at most ``margin`` worse; differences are positive where it is better.

    Example:
        >>> not_worse(Difference(-0.05, 0.02, 3, 5), 0.1), not_worse(Difference(-0.05, 0.2, 3, 5), 0.1)
        ('yes', 'undecided')
    """
    if difference.low >= -margin:
        return "yes"
    return "no" if difference.high < -margin else "undecided"


def better(difference: Difference) -> Verdict:
    """Decide whether an arm is better at all.

    Example:
        >>> better(Difference(0.5, 0.2, 3, 5)), better(Difference(-0.5, 0.2, 3, 5)), better(Difference(0.1, 0.2, 3, 5))
        ('yes', 'no', 'undecided')
    """
    if difference.low > 0:
        return "yes"
    return "no" if difference.high <= 0 else "undecided"


def together(verdicts: list[Verdict]) -> Verdict:
    """Return yes if all are, no if one is, undecided otherwise.

    Example:
        >>> together(["yes", "undecided"]), together(["undecided", "no"])
        ('undecided', 'no')
    """
    if "no" in verdicts:
        return "no"
    return "yes" if verdicts and all(verdict == "yes" for verdict in verdicts) else "undecided"
