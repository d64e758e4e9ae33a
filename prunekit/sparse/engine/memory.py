"""Memory: places for things that are there for some steps only, so that those of other times share it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, final

What = TypeVar("What", bound=Hashable)

ALIGNED = 16
"""Floats of a cache line: everything begins at a multiple of them."""


@final
@dataclass(frozen=True)
class Span(Generic[What]):
    """Something that needs ``size`` floats from step ``first`` to step ``last``, both included."""

    what: What
    first: int
    last: int
    size: int


def pack(spans: Sequence[Span[What]]) -> tuple[dict[What, int], int]:
    """Return the first float of each, none overlapping another of the same time, and the floats of all together.

    The largest first, each as low as it fits.

    Example:
        >>> pack([Span("a", 0, 1, 64), Span("b", 1, 2, 32), Span("c", 2, 3, 16)])
        ({'a': 0, 'b': 64, 'c': 0}, 96)
    """
    placed: list[tuple[Span[What], int]] = []
    for span in sorted(spans, key=lambda span: -span.size):
        at = 0
        for other, begin in sorted(placed, key=lambda place: place[1]):
            meets = other.first <= span.last and span.first <= other.last
            if meets and begin < at + span.size and at < begin + other.size:
                at = begin + -(-other.size // ALIGNED) * ALIGNED
        placed.append((span, at))
    return {span.what: at for span, at in placed}, max((at + span.size for span, at in placed), default=0)
