"""Speed-up against density, and where it begins."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from prunekit.bench.result import DENSE, SPARSE, Bench, Row, Setting

Point = tuple[float, float]
"""Density and speed-up."""


def curve(found: Bench, setting: Setting, than: Row | None) -> tuple[Point, ...]:
    """Return how many times faster than a row `prunekit` is, the densest first; at 1 it is the uncut network's.

    Example:
        >>> from prunekit.bench.result import Case, Machine, Size
        >>> sizes = {1.0: Size(10, 10, 10, 0, 0), 0.5: Size(10, 10, 4, 0, 0)}
        >>> timed = [("eager", 1.0, 6.0), ("prunekit-dense", 1.0, 8.0), ("prunekit", 0.5, 3.0)]
        >>> rows = [Row(Case(name, (1,), 1, density), (ms,)) for name, density, ms in timed]
        >>> curve(Bench("net", sizes, {}, Machine("", {}), tuple(rows)), ((1,), 1), rows[0])
        ((1.0, 0.75), (0.4, 2.0))
    """
    points: dict[float, float] = {}
    for backend in (DENSE, SPARSE):  # where both ran the uncut network, they are the same
        for row in found.by_setting()[setting]:
            speedup = row.faster_than(than)
            if row.case.backend == backend and speedup is not None:
                points[found.sizes[row.case.density].density] = speedup
    return tuple(sorted(points.items(), reverse=True))


def break_even(points: Sequence[Point]) -> float | None:
    """Return the density at which the speed-up falls to 1 on the way from the sparsest point to denser ones.

    Between two points it is a straight line over the logarithm of the density.

    Args:
        points: density in (0, 1] and speed-up, in any order.

    Returns:
        The density; ``inf`` where every point is faster, 0 where the sparsest is slower already, None for no points.

    Example:
        >>> round(break_even([(0.4, 0.5), (0.1, 1.5)]), 6)
        0.2
        >>> break_even([(0.4, 0.5), (0.1, 0.75)]), break_even([(0.4, 1.5)])
        (0.0, inf)
    """
    ordered = sorted(points)
    if not ordered:
        return None
    if ordered[0][1] < 1:
        return 0.0
    for (sparse, fast), (dense, slow) in itertools.pairwise(ordered):
        if slow < 1:
            share = (fast - 1) / (fast - slow)
            return math.exp((1 - share) * math.log(sparse) + share * math.log(dense))
    return math.inf
