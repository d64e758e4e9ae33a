"""Allocations inside a tensor: so many of every M weights in a row (N:M), and so many of every output."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from torch import Tensor

from prunekit.allocate import Allocation
from prunekit.amount import Amount
from prunekit.errors import SelectionError
from prunekit.masks import Masks
from prunekit.native import kernels, library
from prunekit.rank import common_dtype, fitting, holds_nan, image
from prunekit.score import Scores

_CHUNK = 1 << 17  # weights at a time, small enough for the cache
_LARGEST = 16  # group that the kernels know


def n_of_m(*, n: int = 2, m: int = 4) -> Allocation:
    """Keep the best ``n`` of every ``m`` neighbours along the second axis, that of the input channels.

    That is the axis over which a linear layer or a convolution sums, and so the one that sparse tensor cores want their
    2:4 pattern on; a transposed convolution sums over its first, so exclude it. A group with fewer than ``n`` survivors
    keeps those.

    Formula:
        the ``n`` best of every ``m`` along the input channels: density ``n / m``

    Args:
        n: weights kept of each group, at least 1.
        m: size of a group, more than ``n``.

    Raises:
        SelectionError: ``n`` and ``m`` make no pattern; while cutting, the amount asked is not the pattern's, or a
            tensor's second axis does not divide by ``m`` (exclude it).

    Reference:
        Mishra et al. 2021, arXiv 2104.08378, section 3.1; Zhou et al. 2021, arXiv 2102.04010.

    Example:
        >>> from prunekit.amount import Density
        >>> scores = {"weight": torch.tensor([[1.0, 4.0, 3.0, 2.0], [5.0, 5.0, 5.0, 5.0]])}
        >>> dense = Masks({"weight": torch.ones(2, 4, dtype=torch.bool)})
        >>> n_of_m(n=2, m=4)(scores, dense, Density(0.5))["weight"].int().tolist()
        [[0, 1, 1, 0], [1, 1, 0, 0]]
    """
    if not 1 <= n < m:
        raise SelectionError(f"n_of_m needs 1 <= n < m, not {n} of {m}.")

    def allocate(scores: Scores, now: Masks, amount: Amount) -> Masks:
        for name, mask in now.items():
            if mask.ndim < 2 or mask.shape[1] % m:
                raise SelectionError(
                    f"{n}:{m} needs {name!r} to have a second axis that divides by {m}, and its shape is "
                    f"{tuple(mask.shape)}: add it to exclude."
                )
        after = Masks({name: _best_of_groups(scores, name, mask, n, m) for name, mask in now.items()})
        asked = amount.keep(now.kept, now.prunable)
        if asked != after.kept:
            raise SelectionError(
                f"{n}:{m} keeps {after.kept:,} of {now.prunable:,} weights and no other number; {asked:,} were asked. "
                f"Ask for a density of {after.density:g}, in one cut."
            )
        return after

    return allocate


def _best_of_groups(scores: Scores, name: str, mask: Tensor, n: int, m: int) -> Tensor:
    """Return the mask of the ``n`` best survivors in each group of ``m`` along axis 1; of equals, the first."""
    score = fitting(scores, name, mask)
    native = kernels() is not None and m <= _LARGEST and score.dtype != torch.float64
    dtype = torch.float32 if native else common_dtype(scores, Masks({name: mask}))
    group = m * math.prod(mask.shape[2:])
    shape = (mask.numel() // max(1, group), m, group // m)
    flat = score.detach().to("cpu").reshape(shape), mask.reshape(shape)
    kept = torch.empty(shape, dtype=torch.bool)
    size = len(kept) if native and score.dtype == dtype else _CHUNK // max(1, group)
    for values, alive, out in zip(*(each.split(max(1, size)) for each in (*flat, kept)), strict=True):
        if not native:
            _compare(values.to(dtype), alive, n, out)
        elif _choose(values.to(dtype).contiguous(), alive.contiguous(), n, out):
            raise holds_nan(name)
    return kept.reshape(mask.shape)


def _choose(values: Tensor, alive: Tensor, n: int, out: Tensor) -> bool:
    """Choose by the kernels; return whether a survivor is NaN. All are (groups, m, inner), contiguous, and float32."""
    groups, m, inner = out.shape
    pointers = values.data_ptr(), alive.data_ptr(), out.data_ptr()
    return bool(library().pk_groups(groups, inner, n, m, *pointers, torch.get_num_threads()))


def _compare(values: Tensor, alive: Tensor, n: int, out: Tensor) -> None:
    """Choose by torch; all are (groups, m, inner), and no survivor is NaN."""
    images = image(values.flatten(), alive.flatten()).view(alive.shape)
    images ^= torch.iinfo(images.dtype).min  # in signed order; what is cut, the least
    parts = [part.contiguous() for part in images.unbind(1)]
    behind = [torch.full(part.shape, len(parts) - 1 - place, dtype=torch.uint8) for place, part in enumerate(parts)]
    for first, other in itertools.combinations(range(len(parts)), 2):
        wins = torch.ge(parts[first], parts[other]).view(torch.uint8)
        behind[first] -= wins
        behind[other] += wins
    for place, count in enumerate(behind):
        torch.logical_and(count < n, alive[:, place], out=out[:, place])


def per_output(*, min_keep: int = 0) -> Allocation:
    """Rank the weights of each output (first axis) by themselves; every tensor meets the amount exactly.

    In a transposed convolution the first axis is that of the inputs.

    Formula:
        the ``k = round(d n)`` best of each tensor, the same number (to one) of every output's

    Args:
        min_keep: survivors that every output retains (all of them where it has fewer).

    Reference:
        Sun et al. 2023, arXiv 2306.11695, section 3 (comparing within an output is what makes Wanda work).

    Example:
        >>> from prunekit.amount import Density
        >>> scores = {"weight": torch.tensor([[1.0, 2.0, 3.0], [7.0, 8.0, 9.0]])}
        >>> dense = Masks({"weight": torch.ones(2, 3, dtype=torch.bool)})
        >>> per_output()(scores, dense, Density(0.5))["weight"].int().tolist()
        [[0, 1, 1], [0, 0, 1]]
    """
    if min_keep < 0:
        raise SelectionError(f"min_keep must be 0 or more, not {min_keep}: it is a number of weights.")

    def allocate(scores: Scores, now: Masks, amount: Amount) -> Masks:
        dtype = common_dtype(scores, now)
        return Masks({name: _best_of_rows(scores[name], mask, amount, min_keep, dtype) for name, mask in now.items()})

    return allocate


def _best_of_rows(score: Tensor, mask: Tensor, amount: Amount, min_keep: int, dtype: torch.dtype) -> Tensor:
    if not mask.numel():
        return mask
    alive = mask.reshape(len(mask) if mask.ndim else 1, -1)
    rows = score.detach().to("cpu", dtype).reshape(alive.shape)
    living = alive.sum(1)
    counts = _level(living, min_keep, amount.keep(int(living.sum()), mask.numel()))
    values = np.sort(rows.masked_fill(~alive, -torch.inf).numpy(), axis=1)  # rising
    last = torch.from_numpy(values).gather(1, (alive.shape[1] - counts).clamp(max=alive.shape[1] - 1)[:, None])
    better, equal = (rows > last) & alive, (rows == last) & alive
    due = counts - better.sum(1)
    found = better | (equal & (equal.cumsum(1) <= due[:, None]))
    return (found & (counts > 0)[:, None]).reshape(mask.shape)


def _level(living: Tensor, min_keep: int, total: int) -> Tensor:
    """Return how many of each row are kept: all the same, but for rows with fewer, and one more for the first rows."""
    floor = living.clamp(max=min_keep)
    low, high = 0, int(living.max()) if len(living) else 0
    while low < high:  # the highest common level that does not exceed the total
        level = (low + high + 1) // 2
        low, high = (level, high) if int(living.clamp(max=level).maximum(floor).sum()) <= total else (low, level - 1)
    counts = living.clamp(max=low).maximum(floor)
    room = ((counts < living) & (counts == low)).nonzero()[: max(0, total - int(counts.sum())), 0]
    counts[room] += 1
    return counts
