"""Ranking: the best k weights by score, exactly, of one tensor or of all together.

Which weights are best is found by counting, not sorting. The bits of a float, read as an integer, order like the float
(once negative ones are mirrored), so counting 16 bits at a time from the top finds the k-th best score exactly, in two
passes (float32; four for float64) over small chunks, and one more pass writes the masks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from prunekit.errors import MaskError, SelectionError, nearest
from prunekit.masks import Masks
from prunekit.score import Scores

_CHUNK = 1 << 18  # elements at a time: small enough for the cache, large enough for two threads
_DIGIT = 16
_INTEGERS = {32: torch.int32, 64: torch.int64}


def each(scores: Scores, now: Masks, counts: Mapping[str, int]) -> Masks:
    """Return masks of the ``counts[name]`` highest-scoring survivors of each tensor; raises as `best`."""
    return Masks({name: best(scores, Masks({name: mask}), counts[name])[name] for name, mask in now.items()})


def best(scores: Scores, now: Masks, keep: int) -> Masks:
    """Return masks of the ``keep`` highest-scoring survivors over all tensors of ``now``; of equals, the first.

    Raises:
        SelectionError: a score is missing or NaN.
        MaskError: a score has another shape than its mask, or is not floating-point.
    """
    kept = now.kept
    if keep >= kept:
        return now
    if keep <= 0:
        return Masks({name: torch.zeros_like(mask) for name, mask in now.items()})
    dtype = common_dtype(scores, now)
    threshold, ties = _threshold(scores, now, keep, dtype)
    chosen: dict[str, Tensor] = {}
    for name, mask in now.items():
        chosen[name], ties = _above(scores[name], mask, threshold, ties, dtype)
    return Masks(chosen)


def common_dtype(scores: Scores, now: Masks) -> torch.dtype:
    """Return the type that holds every score exactly, having checked that each is there, fits, and is a number."""
    wide = False
    for name, mask in now.items():
        score = fitting(scores, name, mask)
        if score.numel() and score.amax().isnan() and (score.isnan().cpu() & mask).any():
            raise holds_nan(name)
        wide |= score.dtype == torch.float64
    return torch.float64 if wide else torch.float32


def fitting(scores: Scores, name: str, mask: Tensor) -> Tensor:
    """Return the score of a tensor, having checked that it is there and fits its mask."""
    if name not in scores:
        raise SelectionError(f"the scorer gave no score for {name!r}; {nearest(name, scores)}")
    score = scores[name]
    if score.shape != mask.shape or not score.is_floating_point():
        raise MaskError(
            f"the score of {name!r} is {score.dtype} of shape {tuple(score.shape)}; "
            f"it must be floating-point of shape {tuple(mask.shape)}."
        )
    return score


def holds_nan(name: str) -> SelectionError:
    """Return the error of a survivor whose score is no number."""
    return SelectionError(f"the score of {name!r} holds NaN: look at its weights, its gradients and the scorer.")


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
                images = image(piece, kept)
                if known:
                    images = images[(images >> shift + _DIGIT) & (1 << known) - 1 == found]
                counts += torch.bincount((images >> shift) & (1 << _DIGIT) - 1, minlength=1 << _DIGIT)
        at_least = counts.flip(0).cumsum(0).flip(0)
        digit = int((at_least >= keep).nonzero()[-1])
        keep -= int(at_least[digit] - counts[digit])
        found = (found << _DIGIT) + digit
    return _preimage(found, dtype), keep


def image(scores: Tensor, kept: Tensor) -> Tensor:
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
    chosen = torch.empty(mask.numel(), dtype=torch.bool)
    for (piece, kept), out in zip(_chunks(score, mask, dtype), torch.split(chosen, _CHUNK), strict=True):
        torch.gt(piece, threshold, out=out)
        if ties:
            equal = ((piece == threshold) & kept).nonzero()[:ties, 0]
            out[equal] = True
            ties -= len(equal)
        out &= kept
    return chosen.reshape(mask.shape), ties
