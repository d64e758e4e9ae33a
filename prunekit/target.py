"""Meeting a target: from scores and what is asked to masks, by way of an allocation that knows counts alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import torch
from torch import Tensor

from prunekit.allocate import Allocation
from prunekit.amount import Density, MacDensity, Rate, Target
from prunekit.errors import MaskError, SelectionError
from prunekit.masks import Masks
from prunekit.score import Lazy, Scores
from prunekit.shape import Shape


def meet(scores: Scores, now: Masks, target: Target, allocation: Allocation) -> Masks:
    """Return the allocation's masks; a target on multiply-adds is searched for, and met from below.

    Raises:
        SelectionError: even one weight is more than the multiply-adds allow, or as `allocation`.
        MaskError: the allocation gave other names or shapes, or revived a weight.
    """
    if not isinstance(target, MacDensity):
        return _checked(now, allocation(scores, now, target))
    if target.macs(now.per_tensor()) <= target.limit:
        return now
    fits, low, high = None, 0, now.kept
    while low < high:  # the most weights whose multiply-adds are within the limit
        count = (low + high + 1) // 2
        found = _checked(now, allocation(scores, now, Density(count / now.prunable)))
        if target.macs(found.per_tensor()) <= target.limit:
            fits, low = found, count
        else:
            high = count - 1
    if fits is None:
        raise SelectionError(f"no cut of this allocation leaves {target.value:.2%} of the multiply-adds; ask for more.")
    return fits


def on_the_way(now: Masks | Shape, target: Target, times: int) -> list[Target]:
    """Return ``times`` targets that lead from what is kept now to ``target`` in equal factors; all count from ``now``.

    Example:
        >>> import torch
        >>> dense = Masks({"weight": torch.ones(1000, dtype=torch.bool)})
        >>> on_the_way(dense, Density(0.01), 2)
        [Density(value=0.1), Density(value=0.01)]
    """
    if times == 1:
        return [target]
    if isinstance(target, MacDensity):
        first = target.macs(now.per_tensor()) / max(1, target.total)
        steps = [first * (target.value / first) ** (k / times) for k in range(1, times)] if first else []
        return [*(MacDensity(max(step, target.value), target.cost, target.other) for step in steps), target]
    if isinstance(target, Rate):
        return [*(Rate(1 - (1 - target.value) ** (k / times)) for k in range(1, times)), target]
    if not target.keep(now.kept, now.prunable):
        return [target]
    factor = target.value / now.density
    return [*(Density(now.density * factor ** (k / times)) for k in range(1, times)), target]


def among(scores: Scores, alive: Masks) -> Scores:
    """Return the scores with what ``alive`` cuts below all others, so that small cuts add up to one.

    Example:
        >>> import torch
        >>> among({"weight": torch.tensor([1.0, 2.0])}, Masks({"weight": torch.tensor([True, False])}))["weight"]
        tensor([1., -inf])
    """

    def below(name: str, score: Tensor) -> Tensor:
        return score.masked_fill(~alive[name].to(score.device), -torch.inf) if name in alive else score

    return Lazy(below, scores)


def _checked(now: Masks, after: Masks) -> Masks:
    if list(after) != list(now):
        raise MaskError(f"the allocation returned masks for {list(after)[:3]}..., not for {list(now)[:3]}...")
    for name, mask in after.items():
        if mask.shape != now[name].shape:
            shapes = f"{tuple(mask.shape)}, not {tuple(now[name].shape)}"
            raise MaskError(f"the allocation returned {name!r} in shape {shapes}.")
        if np.greater(mask.numpy(), now[name].numpy()).any():  # several times as fast as torch's
            raise MaskError(f"the allocation revives weights of {name!r} that were cut: it must keep within its masks.")
    return after


def solve_total(target: float, sizes: Mapping[str, int], prunable: Collection[str]) -> float:
    """Return the density of the prunable parameters at which ``target`` of *all* parameters is kept.

    Args:
        target: share of all parameters that is not cut, in (0, 1].
        sizes: parameter name -> number of entries, all of the network's.
        prunable: the names that may be cut.

    Returns:
        A density d such that ``Density(d)`` keeps exactly ``round(target * total)`` parameters in all.

    Raises:
        SelectionError: the rest alone is that much or more; its largest tensors are named.

    Example:
        >>> solve_total(0.5, {"conv.weight": 80, "prompt": 20}, ["conv.weight"])
        0.375
    """
    total = sum(sizes.values())
    free = sum(sizes[name] for name in prunable)
    left = round(Density(target).value * total) - (total - free)
    if left <= 0:
        fixed = sorted(sizes.keys() - set(prunable), key=lambda name: (-sizes[name], name))[:3]
        held = ", ".join(f"{name} {sizes[name]:,}" for name in fixed) or "nothing"
        raise SelectionError(
            f"cannot keep {target:.2%} of all {total:,} parameters: those that are not prunable are "
            f"{(total - free) / total:.2%} ({total - free:,}; the largest: {held}). Ask for more, or include them."
        )
    return left / free
