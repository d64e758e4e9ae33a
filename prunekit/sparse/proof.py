"""Proof by running: a smaller network and the one it was made from, side by side in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from prunekit.errors import CheckpointError

LIMIT = 1e-10
"""Rounding in float64 stays far below this share of the largest output, and any wrong channel far above it."""


def prove(model: nn.Module, smaller: nn.Module, example: Any) -> float:
    """Run both on random inputs of the example's shape, and of others where the network takes them.

    The others: two images, twice the width, twice the height, and both larger by half. Code that takes another way for
    yet other inputs is not seen, by this proof or by the trace.

    Args:
        model, smaller: in float64, on the CPU, in eval mode.
        example: input of both; other floating-point types are cast.

    Returns:
        The largest difference of any output, as a share of the largest output.

    Raises:
        CheckpointError: that is more than ``LIMIT``, or one of the networks does not run.

    Example:
        >>> net = nn.Linear(3, 2).double()
        >>> prove(net, net, torch.zeros(1, 3))
        0.0
    """
    worst = 0.0
    with torch.no_grad():
        for inputs, other in _inputs(example):
            try:
                expected = model(inputs)
            except Exception as cause:  # whatever the network's own code raises
                if other:
                    continue
                raise CheckpointError(
                    f"the network does not run in float64 ({_first(cause)}), so a smaller one cannot be proved to "
                    "compute the same: export it without --compact."
                ) from cause
            worst = max(worst, _difference(expected, _run(smaller, inputs)))
    return worst


def _run(smaller: nn.Module, inputs: Any) -> Any:
    try:
        return smaller(inputs)
    except Exception as cause:  # whatever the network's own code raises
        raise CheckpointError(
            f"the network's code does not run with fewer channels ({_first(cause)}): sizes are written into it. Export "
            "it without --compact."
        ) from cause


def _first(cause: Exception) -> str:
    return f"{type(cause).__name__}: {str(cause).strip().partition(chr(10))[0]}"


def _inputs(example: Any) -> Iterator[tuple[Any, bool]]:
    """Yield inputs in float64, and whether they have another shape than the example."""
    generator = torch.Generator().manual_seed(0)

    def each(change: Callable[[Tensor], Tensor]) -> Any:
        return tree_map(lambda leaf: change(leaf.cpu()) if isinstance(leaf, Tensor) else leaf, example)

    def uniform(leaf: Tensor, factors: Sequence[float] = (1, 1, 1)) -> Tensor:
        """Noise with the first axis, and the last two, so many times as long; whole numbers are mixed."""
        shape = list(leaf.shape)
        for axis, factor in zip((0, -2, -1), factors, strict=True):
            if leaf.dim() > (3 if axis else 0):
                shape[axis] = int(factor * shape[axis])
        if leaf.is_floating_point():
            return torch.rand(shape, generator=generator, dtype=torch.float64)
        mixed = torch.randint(max(1, leaf.numel()), (math.prod(shape),), generator=generator)
        return leaf.flatten()[mixed].reshape(shape) if leaf.numel() else leaf

    def normal(leaf: Tensor) -> Tensor:
        return torch.randn(leaf.shape, generator=generator, dtype=torch.float64) if leaf.is_floating_point() else leaf

    for change in (uniform, normal, normal):
        yield each(change), False
    for factors in ((2, 1, 1), (1, 1, 2), (1, 2, 1), (1, 1.5, 1.5)):
        yield each(partial(uniform, factors=factors)), True


def _difference(expected: Any, actual: Any) -> float:
    """Return the largest difference of any output as a share of its largest entry, or raise above the limit."""
    ours, theirs = ([leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)] for output in (actual, expected))
    same = len(ours) == len(theirs) and all(a.shape == b.shape for a, b in zip(ours, theirs, strict=True))
    shares = [_share(a, b) for a, b in zip(ours, theirs, strict=True) if b.numel()] if same else []
    if same and all(share <= LIMIT for share in shares):  # false for nan
        return max(shares, default=0.0)
    found = f"differ by {max(shares):.1e} of the largest output" if same else "have other shapes"
    raise CheckpointError(
        f"the outputs of the network without its dead channels {found}: its code is not understood, or not the same "
        "twice. Export it without --compact."
    )


def _share(actual: Tensor, expected: Tensor) -> float:
    wide = torch.complex128 if expected.is_complex() else torch.float64
    expected, actual = expected.to(wide), actual.to(wide)
    agree = (actual == expected) | (actual.isnan() & expected.isnan())
    apart = float((actual - expected).abs().masked_fill(agree, 0).max())
    largest = float(expected.abs().max())
    return apart / largest if largest and math.isfinite(largest) else apart
