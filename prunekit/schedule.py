"""Schedules: how the density falls over the progress of a run (no torch)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

from prunekit.amount import Density, Rate
from prunekit.errors import RecipeError, SelectionError

Schedule = Callable[[float], float]
"""Progress in [0, 1] -> density in (0, 1]."""


def geometric(density: float) -> Schedule:
    """Fall by the same factor each time: ``density ** progress``; density in (0, 1].

    Formula:
        d(t) = ``D^t``

    Example:
        >>> [round(geometric(0.25)(t), 3) for t in (0, 0.5, 1)]
        [1.0, 0.5, 0.25]

    Reference:
        Frankle & Carbin 2019 (arXiv 1803.03635), section 2: a fixed share of the survivors each round.
    """
    final_density = Density(density).value
    return lambda progress: final_density**progress


def linear(density: float) -> Schedule:
    """Fall by the same amount each time: from 1 to ``density``, in (0, 1].

    Formula:
        d(t) = ``1 - (1 - D) t``

    Example:
        >>> [linear(0.2)(t) for t in (0, 0.5, 1)]
        [1.0, 0.6, 0.2]
    """
    final_density = Density(density).value
    return lambda progress: (1 - progress) + final_density * progress


def cubic(density: float) -> Schedule:
    """Fall fast at first, then ever more slowly: ``density + (1 - density) * (1 - progress) ** 3``.

    Formula:
        d(t) = ``D + (1 - D) (1 - t)³``

    Example:
        >>> [cubic(0.2)(t) for t in (0, 0.5, 1)]
        [1.0, 0.30000000000000004, 0.2]

    Reference:
        Zhu & Gupta 2017 (arXiv 1710.01878), equation 1, written for density instead of sparsity.
    """
    final_density = Density(density).value
    return lambda progress: final_density + (1 - final_density) * (1 - progress) ** 3


def cosine(density: float) -> Schedule:
    """Fall slowly at both ends: half a wave from 1 to ``density``, in (0, 1].

    Formula:
        d(t) = ``D + (1 - D) (1 + cos π t) / 2``

    Example:
        >>> [round(cosine(0.2)(t), 3) for t in (0, 0.5, 1)]
        [1.0, 0.6, 0.2]
    """
    final_density = Density(density).value
    return lambda progress: final_density + (1 - final_density) * (1 + math.cos(math.pi * progress)) / 2


def at_once(density: float) -> Schedule:
    """Fall to ``density``, in (0, 1], with the first cut.

    Formula:
        d(0) = ``1``, d(t) = ``D`` for t > 0

    Example:
        >>> levels(at_once(0.2), rounds=1)
        (0.2,)
    """
    final_density = Density(density).value
    return lambda progress: final_density if progress > 0 else 1.0


def explicit(densities: Sequence[float]) -> Schedule:
    """Step through a list of falling densities, each in (0, 1]: entry k of n is reached at progress k / n.

    Formula:
        d(t) = ``D_k``, with k = ``⌈t n⌉`` of a list of n

    Example:
        >>> levels(explicit([0.5, 0.1]), rounds=2)
        (0.5, 0.1)
    """
    steps = tuple(Density(density).value for density in densities)
    if not steps or any(after > before for before, after in itertools.pairwise(steps)):
        raise SelectionError(f"explicit densities must be a non-empty, falling list, not {list(steps)}.")
    return lambda progress: (
        1.0 if progress <= 0 else steps[min(len(steps), math.ceil(progress * len(steps) - 1e-9)) - 1]
    )


def rate(rate: float) -> Rate:
    """Remove the same share of the survivors each time, counted as the MIR-L paper does (see `Rate`).

    Formula:
        n survivors become ``n - ⌈p (n - 1)⌉``, with p the rate

    Reference:
        Katraouras & Rafailidis 2025, arXiv 2510.14463, as its published code counts.
    """
    return Rate(rate)


def levels(schedule: Schedule, *, rounds: int) -> tuple[float, ...]:
    """Return the densities after each of ``rounds`` cuts: the schedule at progress 1/rounds, 2/rounds, ..., 1.

    Example:
        >>> [round(d, 3) for d in levels(geometric(0.125), rounds=3)]
        [0.5, 0.25, 0.125]
    """
    if rounds < 1:
        raise RecipeError(f"rounds must be at least 1, not {rounds}: a plan without a cut prunes nothing.")
    densities = tuple(schedule(k / rounds) for k in range(1, rounds + 1))
    refuse_rising(densities)
    if any(after == before < 1 for before, after in itertools.pairwise(densities)):
        raise RecipeError(
            f"{rounds} rounds, but the schedule gives only {list(dict.fromkeys(densities))}: set rounds to match."
        )
    return densities


def refuse_rising(densities: Sequence[float]) -> None:
    """Raise RecipeError unless densities lie in (0, 1] and never rise: what is cut does not come back."""
    for before, after in itertools.pairwise((1.0, *densities)):
        if not 0 < after <= 1 or after > before:
            raise RecipeError(
                f"the schedule goes from {before:g} to {after:g}: densities lie above 0 and at most 1, and never rise."
            )
