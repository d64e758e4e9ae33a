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
Values = Mapping[tuple[int, str], float]
"""(seed, item) -> value."""


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


def paired(mine: Values, other: Values) -> Difference:
    """Compare two arms on the items and the seeds that both have.

    The same items are measured with every seed, so neither all pairs nor seeds alone are independent. The interval's
    half is the root of the sum of two squares: Student's quantile times the standard error of the seeds' means, and
    the same of the items' means. Where both vary normally it covers in at least 95 of 100 studies, for any number of
    seeds and items from two on; with two or three seeds it is wide.

    Args:
        mine, other: (seed, item) -> value; items that are not there for every common seed in both count nothing.

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
        Owen 2007 (The pigeonhole bootstrap) on means over two crossed factors; Banerjee 1960 (Sankhya 22) on the
        interval. What seeds and items share of the noise is counted in both, which makes it wider still.
    """
    seeds, items = _common(mine, other)
    if not items:
        raise ValueError("the arms share no item that all their common seeds have")
    gaps = np.array([[mine[seed, item] - other[seed, item] for item in items] for seed in seeds])
    mean = float(gaps.mean())
    if min(gaps.shape) < 2:
        return Difference(mean, math.inf, *gaps.shape)
    return Difference(mean, _half(gaps), *gaps.shape)


def comparable(mine: Values, other: Values) -> bool:
    """Tell whether there is an item that all common seeds of two arms have."""
    return bool(_common(mine, other)[1])


def _common(mine: Values, other: Values) -> tuple[list[int], list[str]]:
    both = mine.keys() & other.keys()
    seeds = sorted({seed for seed, _ in both})
    items = sorted({item for _, item in both})
    return seeds, [item for item in items if all((seed, item) in both for seed in seeds)]


def _half(gaps: NDArray[np.float64]) -> float:
    try:
        from scipy.stats import t
    except ImportError as cause:
        raise PruneKitError('intervals need scipy: pip install "prunekit[report]".') from cause
    halves = [
        t.ppf(0.975, number - 1) * gaps.mean(1 - axis).std(ddof=1) / math.sqrt(number)
        for axis, number in enumerate(gaps.shape)
    ]
    return math.hypot(*map(float, halves))


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
