"""Proof by running: a smaller network and the one it was made from, side by side in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from prunekit.errors import CheckpointError

LIMIT = 1e-10
"""Rounding in float64 stays far below this share of the largest output, and any wrong channel far above it."""


def prove(model: nn.Module, smaller: nn.Module, example: Any) -> float:
    """Run both on random inputs of the example's shape, and at twice its width where the network takes that.

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
        for inputs, wide in _inputs(example):
            try:
                expected = model(inputs)
            except Exception as cause:  # whatever the network's own code raises
                if wide:
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
    """Yield inputs in float64, and whether they are wider than the example."""
    generator = torch.Generator().manual_seed(0)

    def each(change: Callable[[Tensor], Tensor]) -> Any:
        return tree_map(lambda leaf: change(leaf.cpu()) if isinstance(leaf, Tensor) else leaf, example)

    def uniform(leaf: Tensor, repeats: int = 1) -> Tensor:
        if not leaf.is_floating_point():
            return leaf
        shape = (*leaf.shape[:-1], repeats * leaf.shape[-1]) if leaf.dim() > 3 else leaf.shape
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    def normal(leaf: Tensor) -> Tensor:
        return torch.randn(leaf.shape, generator=generator, dtype=torch.float64) if leaf.is_floating_point() else leaf

    yield each(uniform), False
    yield each(normal), False
    yield each(normal), False
    yield each(lambda leaf: uniform(leaf, 2)), True


def _difference(expected: Any, actual: Any) -> float:
    """Return the largest difference of two outputs as a share of the largest entry, or raise above the limit."""
    ours, theirs = ([leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)] for output in (actual, expected))
    same = len(ours) == len(theirs) and all(a.shape == b.shape for a, b in zip(ours, theirs, strict=True))
    if same:
        values = [
            torch.cat([leaf.double().flatten() for leaf in leaves] or [torch.zeros(1)]) for leaves in (ours, theirs)
        ]
        largest, apart = float(values[1].abs().max()), float((values[0] - values[1]).abs().max())
        share = apart / largest if largest else apart
        if share <= LIMIT:  # false for nan
            return share
    found = f"differ by {share:.1e} of the largest output" if same else "have other shapes"
    raise CheckpointError(
        f"the outputs of the network without its dead channels {found}, so something in its code was not understood: "
        "export it without --compact."
    )
