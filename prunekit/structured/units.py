"""Units: what goes as one, what it is worth, and which units are alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from prunekit.structured.find import Found
from prunekit.structured.slots import Ids

Axes = Mapping[tuple[str, int], Ids]


@final
@dataclass(frozen=True, eq=False)
class Units:
    """What can go, numbered from 1 on; number 0 is what stays.

    Args:
        axes: (canonical name, axis) -> the unit of each index.
        worth: of each unit, entry 0 unused.
        groups: of each unit the number of its group: units that take as much of the same axes, such as all channels of
            one residual stream.
    """

    axes: Axes
    worth: NDArray[np.float64]
    groups: Ids


def united(found: Found, score: Callable[[str], Tensor | None], *, power: int = 1) -> Units:
    """Return the units of a network and what each is worth: its scores, summed up in each tensor, averaged over those.

    Args:
        found: what goes together.
        score: name of a parameter -> scores of its entries; None for what has none.
        power: the scores are raised to it before they are summed: with magnitudes, 1 gives L1 norms, and 2 the
            squares of L2 norms.

    Reference:
        Sum over a filter: Li et al. 2017, arXiv 1608.08710, section 3.1 (L1). The layers of a
        group together: Fang et al. 2023 (DepGraph), arXiv 2301.12900; a mean here, which does not favour long groups.
    """
    count = 1 + max((int(ids.max()) for ids in found.axes.values()), default=0)
    worth = _mean_over_tensors(found.axes, score, power, count)
    unit = _by_rank(found, worth, count)
    axes = {axis: unit[ids] for axis, ids in found.axes.items()}
    numbers, unit = np.unique(np.concatenate([[0], unit]), return_inverse=True)
    dense = np.zeros(numbers[-1] + 1, dtype=np.int64)
    dense[numbers] = np.arange(len(numbers))
    unit = unit[1:]
    members = np.bincount(unit, minlength=len(numbers))
    summed = np.bincount(unit, weights=worth, minlength=len(numbers))
    renamed = {axis: dense[ids] for axis, ids in axes.items()}
    return Units(renamed, summed / np.maximum(members, 1), _groups(renamed, len(numbers)))


def _mean_over_tensors(
    axes: Axes, score: Callable[[str], Tensor | None], power: int, count: int
) -> NDArray[np.float64]:
    total, tensors = np.zeros(count), np.zeros(count)
    held: tuple[str, Tensor | None] = ("", None)
    for (name, axis), ids in axes.items():
        if name != held[0]:
            held = name, None if name.rpartition(".")[2] == "bias" else score(name)
        if held[1] is None:
            continue
        scores = held[1].detach().double().pow(power)
        of_each = scores.movedim(axis, 0).flatten(1).sum(1) if scores.dim() > 1 else scores
        total += np.bincount(ids, weights=of_each.cpu().numpy(), minlength=count)
        tensors += np.bincount(ids, minlength=count) > 0
    return total / np.maximum(tensors, 1)


def _by_rank(found: Found, worth: NDArray[np.float64], count: int) -> Ids:
    """Return the unit of each component: of tied lanes, the best of each go together, the second best, and so on."""
    unit = np.arange(count)
    for lanes in found.ties:
        steps = int(np.gcd.reduce([len(lane) for lane in lanes]))
        ranked = [lane[np.argsort(-worth[lane], kind="stable")].reshape(steps, -1) for lane in lanes]
        for lane in ranked:
            unit[lane] = ranked[0][:, :1]
    return unit


def _groups(axes: Axes, count: int) -> Ids:
    """Return group numbers by a fingerprint of how many indices of which axes a unit takes."""
    print_ = np.zeros(count, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for place, ids in enumerate(axes.values(), 1):
            taken = np.bincount(ids, minlength=count).astype(np.uint64)
            print_ += taken * (np.uint64(place) * np.uint64(0x9E3779B97F4A7C15) ^ np.uint64(0xBF58476D1CE4E5B9))
    _, groups = np.unique(print_, return_inverse=True)
    found: Ids = groups.astype(np.int64)
    return found
