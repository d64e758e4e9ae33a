"""Allocations: given scores, how many weights each tensor keeps, and which; exact counts, never reviving any."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from prunekit.amount import Amount, Density, Rate
from prunekit.errors import SelectionError
from prunekit.masks import Masks
from prunekit.rank import best, each
from prunekit.score import Scores
from prunekit.select import matching

Allocation = Callable[[Scores, Masks, Amount], Masks]
"""Never revives; keeps exactly the asked count; of equal scores keeps those that come first in model order."""


def everywhere(*, min_keep: int = 0) -> Allocation:
    """Rank all prunable weights together: one threshold for the whole network.

    Formula:
        the ``k = round(d n)`` best of all n prunable weights, at density d

    Args:
        min_keep: survivors that every tensor retains (all of them where it has fewer). The total asked is still met
            exactly, as other tensors give more, unless these alone exceed it.

    Reference:
        Frankle & Carbin 2019, arXiv 1803.03635, section 4 (global pruning).

    Example:
        >>> import torch
        >>> scores = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([3.0, 4.0])}
        >>> dense = Masks({name: torch.ones(2, dtype=torch.bool) for name in scores})
        >>> everywhere()(scores, dense, Density(0.5)).per_tensor()
        {'a': (0, 2), 'b': (2, 2)}
        >>> everywhere(min_keep=1)(scores, dense, Density(0.5)).per_tensor()
        {'a': (1, 2), 'b': (1, 2)}
    """
    _check_min_keep(min_keep)

    def allocate(scores: Scores, now: Masks, amount: Amount) -> Masks:
        keep = amount.keep(now.kept, now.prunable)
        if not min_keep:
            return best(scores, now, keep)
        safe = each(scores, now, {name: min(min_keep, kept) for name, (kept, _) in now.per_tensor().items()})
        rest = best(scores, Masks({name: mask & ~safe[name] for name, mask in now.items()}), keep - safe.kept)
        return Masks({name: mask | safe[name] for name, mask in rest.items()})

    return allocate


def per_layer(*, rates: Mapping[str, float] = MappingProxyType({}), min_keep: int = 0) -> Allocation:
    """Rank each tensor by itself: the amount is asked of every tensor.

    Formula:
        the ``k = round(d n)`` best of each tensor's own n

    Args:
        rates: glob of parameter names -> factor in [0, 1] on what is cut there; the first that matches counts. A
            ``Rate(p)`` becomes ``Rate(factor * p)``, a ``Density(d)`` becomes ``Density(1 - factor * (1 - d))``; 0
            leaves the tensor alone.
        min_keep: survivors that every tensor retains (all of them where it has fewer).

    Reference:
        Frankle & Carbin 2019, arXiv 1803.03635, section 2 (layer-wise, the output layer at half the rate).

    Example:
        >>> import torch
        >>> scores = {"a": torch.arange(11.0), "out": torch.arange(11.0)}
        >>> dense = Masks({name: torch.ones(11, dtype=torch.bool) for name in scores})
        >>> per_layer(rates={"out": 0.5})(scores, dense, Rate(0.2)).per_tensor()
        {'a': (9, 11), 'out': (10, 11)}
    """
    _check_min_keep(min_keep)
    for pattern, factor in rates.items():
        if not 0 <= factor <= 1:
            raise SelectionError(f"rates: the factor of {pattern!r} must be between 0 and 1, not {factor:g}.")

    def allocate(scores: Scores, now: Masks, amount: Amount) -> Masks:
        factors: dict[str, float] = {}
        for pattern, factor in rates.items():
            factors = dict.fromkeys(matching(pattern, now, "rates"), factor) | factors
        counts = {
            name: max(_scaled(amount, factors.get(name, 1.0)).keep(kept, size), min(min_keep, kept))
            for name, (kept, size) in now.per_tensor().items()
        }
        return each(scores, now, counts)

    return allocate


def erk(*, min_keep: int = 0) -> Allocation:
    """Give each tensor a density in proportion to the sum of its axes over their product: small tensors stay denser.

    The total asked is met exactly. A tensor whose share would be more than has survived keeps that, and the others
    share the rest; so a vector (a norm's scale) stays whole as long as any other tensor can give more.

    Formula:
        tensor i keeps the density ``d_i ∝ (a_1 + a_2 + ...) / (a_1 a_2 ...)``, a its axes, at most 1

    Args:
        min_keep: survivors that every tensor retains (all of them where it has fewer).

    Reference:
        Evci et al. 2020, arXiv 1911.11134, section 3 (Erdos-Renyi-Kernel); Mocanu et al. 2018, arXiv 1707.04780.

    Example:
        >>> import torch
        >>> scores = {"a": torch.rand(10, 10), "b": torch.rand(40, 10)}
        >>> dense = Masks({name: torch.ones_like(score, dtype=torch.bool) for name, score in scores.items()})
        >>> erk()(scores, dense, Density(0.1)).per_tensor()  # 20 and 50 entries on the axes: in the proportion 2 : 5
        {'a': (14, 100), 'b': (36, 400)}
    """
    _check_min_keep(min_keep)

    def allocate(scores: Scores, now: Masks, amount: Amount) -> Masks:
        total = amount.keep(now.kept, now.prunable)
        most = {name: kept for name, (kept, _) in now.per_tensor().items()}
        least = {name: min(min_keep, kept) for name, kept in most.items()}
        axes = {name: max(1, sum(mask.shape)) for name, mask in now.items()}  # a scalar has no axis, and one entry
        return each(scores, now, shares(axes, least, most, total))

    return allocate


def shares(
    weights: Mapping[str, float], least: Mapping[str, int], most: Mapping[str, int], total: int
) -> dict[str, int]:
    """Return whole numbers in proportion to the weights, each within its bounds, that add up to ``total``.

    Bounds that bind are met first, and the rest is shared again. Where the bounds do not allow the total, the nearest.

    Example:
        >>> shares({"a": 1, "b": 1, "c": 2}, {"a": 0, "b": 0, "c": 0}, {"a": 1, "b": 9, "c": 9}, 10)
        {'a': 1, 'b': 3, 'c': 6}
    """
    exact = {name: float(most[name]) for name in weights}
    low, high = 0.0, max((most[name] / max(weight, 1e-300) for name, weight in weights.items()), default=0.0)
    for _ in range(200):  # the scale at which the bounded shares add up: their sum only rises with it
        scale = (low + high) / 2
        exact = {name: min(max(scale * weight, least[name]), most[name]) for name, weight in weights.items()}
        low, high = (scale, high) if sum(exact.values()) < total else (low, scale)
    found = {name: int(share + 1e-6) for name, share in exact.items()}
    rest = sorted(found, key=lambda name: found[name] - exact[name])  # the largest remainder first
    while (missing := total - sum(found.values())) > 0:
        grown = [name for name in rest if found[name] < most[name]][:missing]
        if not grown:
            break
        found |= {name: found[name] + 1 for name in grown}
    return found


def _check_min_keep(min_keep: int) -> None:
    if min_keep < 0:
        raise SelectionError(f"min_keep must be 0 or more, not {min_keep}: it is a number of weights.")


def _scaled(amount: Amount, factor: float) -> Amount:
    if isinstance(amount, Rate):
        return Rate(factor * amount.value)
    return Density(1 - factor * (1 - amount.value)) if factor != 1 else amount
