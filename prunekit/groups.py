"""Allocations inside a tensor: so many of every M weights in a row (N:M), and so many of every output."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from prunekit.allocate import Allocation, shares
from prunekit.amount import Amount
from prunekit.errors import SelectionError
from prunekit.masks import Masks
from prunekit.rank import common_dtype
from prunekit.score import Scores

_CHUNK = 1 << 16  # groups at a time, small enough for the cache


def n_of_m(*, n: int = 2, m: int = 4) -> Allocation:
    """Keep the best ``n`` of every ``m`` neighbours along the second axis, that of the input channels.

    That is the axis over which a linear layer or a convolution sums, and so the one that sparse tensor cores want their
    2:4 pattern on. A group with fewer than ``n`` survivors keeps those.

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
        common_dtype(scores, now)
        after = Masks({name: _best_of_groups(scores[name], mask, n, m) for name, mask in now.items()})
        asked = amount.keep(now.kept, now.prunable)
        if asked != after.kept:
            raise SelectionError(
                f"{n}:{m} keeps {after.kept:,} of {now.prunable:,} weights and no other number; {asked:,} were asked. "
                f"Ask for a density of {after.density:g}, in one cut."
            )
        return after

    return allocate


def _best_of_groups(score: Tensor, mask: Tensor, n: int, m: int) -> Tensor:
    """Return the mask of the ``n`` best survivors in each group of ``m`` along axis 1; of equals, the first."""
    shape = (mask.shape[0], mask.shape[1] // m, m, -1)
    kept = torch.empty_like(mask)
    pieces = (_rows(score.detach().to("cpu").reshape(shape)), _rows(mask.reshape(shape)), _rows(kept.view(shape)))
    for values, alive, out in zip(*pieces, strict=True):
        parts, living = values.unbind(2), alive.unbind(2)
        for here in range(m):
            ahead = torch.zeros(parts[here].shape, dtype=torch.uint8)
            for other in range(m):
                if other != here:
                    beats = torch.ge if other < here else torch.gt
                    ahead += beats(parts[other], parts[here]).logical_and_(living[other])
            torch.lt(ahead, n, out=out[:, :, here]).logical_and_(living[here])
    return kept


def _rows(tensor: Tensor) -> Iterator[Tensor]:
    per_row = max(1, tensor[0].numel()) if len(tensor) else 1
    return iter(tensor.split(max(1, _CHUNK // per_row)))


def per_output(*, min_keep: int = 0) -> Allocation:
    """Rank the weights of each output (first axis) by themselves; every tensor meets the amount exactly.

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
        common_dtype(scores, now)
        return Masks({name: _best_of_rows(scores[name], mask, amount, min_keep) for name, mask in now.items()})

    return allocate


def _best_of_rows(score: Tensor, mask: Tensor, amount: Amount, min_keep: int) -> Tensor:
    rows, alive = (each.detach().to("cpu").reshape(len(mask) if mask.ndim else 1, -1) for each in (score, mask))
    living = alive.sum(1).tolist()
    most = {f"{row}": kept for row, kept in enumerate(living)}
    keep = amount.keep(sum(living), mask.numel())
    least = {row: min(min_keep, kept) for row, kept in most.items()}
    counts = torch.tensor(list(shares(dict.fromkeys(most, 1.0), least, most, keep).values()))
    # Survivors first, each row's best first; of equals the first, as both sorts are stable.
    order = rows.argsort(dim=1, descending=True, stable=True)
    order = order.gather(1, alive.gather(1, order).to(torch.uint8).argsort(dim=1, descending=True, stable=True))
    ranked = torch.arange(rows.shape[1]) < counts[:, None]
    return torch.zeros_like(alive).scatter_(1, order, ranked).reshape(mask.shape)
