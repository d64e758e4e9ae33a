"""What a density is a share of: the prunable parameters, all of them, or the multiply-adds."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from torch import nn

from prunekit.amount import Density, MacDensity, Rate, Target
from prunekit.errors import SelectionError, nearest
from prunekit.measure import macs_per_tensor
from prunekit.select import parameters
from prunekit.target import solve_total

OF = ("prunable", "all", "macs")


def share_of(
    of: str, model: nn.Module, prunable: Collection[str], example: Callable[[], Any]
) -> Callable[[Target], Target]:
    """Return a function that turns a density of something into what a cut can be asked for.

    Args:
        of: ``"prunable"``, ``"all"`` (parameters) or ``"macs"`` (multiply-adds of one pass).
        model: the network; run once for ``"macs"``.
        prunable: names of the parameters that may be cut, and ``""`` where the products of no parameter shrink with
            them, as in structured cuts.
        example: returns one input, asked for ``"macs"`` only.

    Raises:
        SelectionError: ``of`` is none of these; from the function: what is not prunable is more than the share, or a
            ``Rate`` of multiply-adds.

    Example:
        >>> share_of("all", nn.Linear(3, 2), ["weight"], lambda: None)(Density(0.5))  # 4 of 8, 2 of them in the bias
        Density(value=0.3333333333333333)
    """
    if of not in OF:
        raise SelectionError(f"{of!r} is nothing that a density can be a share of: {nearest(of, OF)}")
    if of == "prunable":
        return lambda target: target
    if of == "all":
        sizes = {name: parameter.numel() for name, parameter in parameters(model).items()}
        if sizes.keys() <= set(prunable):
            return lambda target: target
        return lambda target: Density(solve_total(_density(target), sizes, prunable))
    macs = {name: each.dense for name, each in macs_per_tensor(model, example()).items()}
    cost = {name: macs.pop(name, 0) for name in prunable}
    return lambda target: MacDensity(_density(target), cost, sum(macs.values()))


def _density(target: Target) -> float:
    if isinstance(target, Rate):
        raise SelectionError("a rate is a share of the survivors, of nothing else; give a density.")
    return target.value
