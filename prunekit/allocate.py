"""Allocations: given scores, how many weights each tensor keeps, and which; exact counts, never reviving any.

Which weights are best is found by counting, not sorting. The bits of a float, read as an integer, order like the float
(once negative ones are mirrored), so counting 16 bits at a time from the top finds the k-th best score exactly, in two
passes (float32; four for float64) over small chunks, and one more pass writes the masks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from prunekit.errors import MaskError, SelectionError, nearest
from prunekit.masks import Masks
from prunekit.schedule import Amount, Density, Rate
from prunekit.score import Scores
from prunekit.select import matching

Allocation = Callable[[Scores, Masks, Amount], Masks]
"""Never revives; keeps exactly the asked count; of equal scores keeps those that come first in model order."""

_CHUNK = 1 << 18  # elements at a time: small enough for the cache, large enough for two threads
_DIGIT = 16
_INTEGERS = {32: torch.int32, 64: torch.int64}


def everywhere(*, min_keep: int = 0) -> Allocation:
    """Rank all prunable weights together: one threshold for the whole network.

    Args:
        min_keep: survivors that every tensor retains (all of them where it has fewer). The total asked is still met
            exactly, as other tensors give more, unless these alone exceed it.

    Reference:
        Frankle & Carbin 2019, arXiv 1803.03635, section 4 (global pruning).

    Example:
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
            return _best(scores, now, keep)
        safe = _each(scores, now, {name: min(min_keep, kept) for name, (kept, _) in now.per_tensor().items()})
        rest = _best(scores, Masks({name: mask & ~safe[name] for name, mask in now.items()}), keep - safe.kept)
        return Masks({name: mask | safe[name] for name, mask in rest.items()})

    return allocate


def per_layer(*, rates: Mapping[str, float] = MappingProxyType({}), min_keep: int = 0) -> Allocation:
    """Rank each tensor by itself: the amount is asked of every tensor.

    Args:
        rates: glob of parameter names -> factor in [0, 1] on what is cut there; the first that matches counts. A
            ``Rate(p)`` becomes ``Rate(factor * p)``, a ``Density(d)`` becomes ``Density(1 - factor * (1 - d))``; 0
            leaves the tensor alone.
        min_keep: survivors that every tensor retains (all of them where it has fewer).

    Reference:
        Frankle & Carbin 2019, arXiv 1803.03635, section 2 (layer-wise, the output layer at half the rate).

    Example:
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
        return _each(scores, now, counts)

    return allocate


def _check_min_keep(min_keep: int) -> None:
    if min_keep < 0:
        raise SelectionError(f"min_keep must be 0 or more, not {min_keep}: it is a number of weights.")


def _scaled(amount: Amount, factor: float) -> Amount:
    if isinstance(amount, Rate):
        return Rate(factor * amount.value)
    return Density(1 - factor * (1 - amount.value)) if factor != 1 else amount


def _each(scores: Scores, now: Masks, counts: Mapping[str, int]) -> Masks:
    return Masks({name: _best(scores, Masks({name: mask}), counts[name])[name] for name, mask in now.items()})


def _best(scores: Scores, now: Masks, keep: int) -> Masks:
    """Return masks of the ``keep`` highest-scoring survivors over all tensors of ``now``."""
    kept = now.kept
    if keep >= kept:
        return now
    if keep <= 0:
        return Masks({name: torch.zeros_like(mask) for name, mask in now.items()})
    dtype = _common_dtype(scores, now)
    threshold, ties = _threshold(scores, now, keep, dtype)
    chosen: dict[str, Tensor] = {}
    for name, mask in now.items():
        chosen[name], ties = _above(scores[name], mask, threshold, ties, dtype)
    return Masks(chosen)


def _common_dtype(scores: Scores, now: Masks) -> torch.dtype:
    """Return the type that holds every score exactly, having checked that each is there, fits, and is a number."""
    wide = False
    for name, mask in now.items():
        if name not in scores:
            raise SelectionError(f"the scorer gave no score for {name!r}; {nearest(name, scores)}")
        score = scores[name]
        if score.shape != mask.shape or not score.is_floating_point():
            raise MaskError(
                f"the score of {name!r} is {score.dtype} of shape {tuple(score.shape)}; "
                f"it must be floating-point of shape {tuple(mask.shape)}."
            )
        if score.numel() and score.amax().isnan() and (score.isnan().cpu() & mask).any():
            raise SelectionError(f"the score of {name!r} holds NaN: look at its weights, its gradients and the scorer.")
        wide |= score.dtype == torch.float64
    return torch.float64 if wide else torch.float32


def _chunks(score: Tensor, mask: Tensor, dtype: torch.dtype) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield flat (score, mask) pieces in row-major order, on the CPU."""
    pieces = torch.split(score.detach().flatten(), _CHUNK), torch.split(mask.flatten(), _CHUNK)
    for piece, kept in zip(*pieces, strict=True):
        yield piece.to("cpu", dtype), kept


def _threshold(scores: Scores, now: Masks, keep: int, dtype: torch.dtype) -> tuple[float, int]:
    """Return the ``keep``-th best score, and how many of the scores equal to it are among the ``keep`` best."""
    width = torch.finfo(dtype).bits
    found = 0  # the leading bits of the image of the score we look for
    for shift in range(width - _DIGIT, -1, -_DIGIT):
        known = width - _DIGIT - shift
        counts = torch.zeros(1 << _DIGIT, dtype=torch.int64)
        for name, mask in now.items():
            for piece, kept in _chunks(scores[name], mask, dtype):
                image = _image(piece, kept)
                if known:
                    image = image[(image >> shift + _DIGIT) & (1 << known) - 1 == found]
                counts += torch.bincount((image >> shift) & (1 << _DIGIT) - 1, minlength=1 << _DIGIT)
        at_least = counts.flip(0).cumsum(0).flip(0)
        digit = int((at_least >= keep).nonzero()[-1])
        keep -= int(at_least[digit] - counts[digit])
        found = (found << _DIGIT) + digit
    return _preimage(found, dtype), keep


def _image(scores: Tensor, kept: Tensor) -> Tensor:
    """Return integers whose bits, read without sign, order like the scores (-0.0 as 0.0); 0, the least, where cut.

    Plain arithmetic throughout: choosing by a random mask would cost a mispredicted branch per weight.
    """
    width = torch.finfo(scores.dtype).bits
    bits = scores.view(_INTEGERS[width])
    if bits.numel() and bits.amin() < 0:
        sign = bits >> width - 1
        bits = (bits ^ (sign & torch.iinfo(bits.dtype).max)) - sign  # negative ones, which order backwards, mirrored
    return (bits ^ torch.iinfo(bits.dtype).min).mul_(kept)


def _preimage(image: int, dtype: torch.dtype) -> float:
    """Return the score that has this image."""
    bits = image - (1 << torch.finfo(dtype).bits - 1)
    kind = _INTEGERS[torch.finfo(dtype).bits]
    return float(torch.tensor(bits if bits >= 0 else torch.iinfo(kind).min - bits, dtype=kind).view(dtype))


def _above(score: Tensor, mask: Tensor, threshold: float, ties: int, dtype: torch.dtype) -> tuple[Tensor, int]:
    """Return the mask of survivors above the threshold and the first ``ties`` equal to it, and the ties still due."""
    best = torch.empty(mask.numel(), dtype=torch.bool)
    for (piece, kept), out in zip(_chunks(score, mask, dtype), torch.split(best, _CHUNK), strict=True):
        torch.gt(piece, threshold, out=out)
        if ties:
            equal = ((piece == threshold) & kept).nonzero()[:ties, 0]
            out[equal] = True
            ties -= len(equal)
        out &= kept
    return best.reshape(mask.shape), ties
