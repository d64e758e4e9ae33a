"""Sensitivities: what it costs to cut one tensor alone, for each tensor and several densities."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from prunekit.amount import Density
from prunekit.calibration import Calibration
from prunekit.errors import SelectionError
from prunekit.masks import Masks
from prunekit.measure import evaluating
from prunekit.preserve import preserved
from prunekit.pruner import NO_DATA, prune
from prunekit.score import FromData, PerTensor, Scorer, Scores
from prunekit.select import parameters

Badness = Callable[[nn.Module], float]
"""How bad a network is: a loss, a change, a PSNR with its sign reversed; higher is worse."""


@final
@dataclass(frozen=True)
class Sensitivity:
    """One tensor, cut alone.

    Args:
        tensor: canonical name.
        place: of the tensor in model order, from 0.
        shape: of the tensor.
        densities: shares of its weights that were to be kept, falling.
        kept: number of weights kept at each.
        before: the measure with nothing cut but what was; higher is worse.
        after: the measure with the tensor cut to each density and all others as they were.
    """

    tensor: str
    place: int
    shape: tuple[int, ...]
    densities: tuple[float, ...]
    kept: tuple[int, ...]
    before: float
    after: tuple[float, ...]

    @property
    def size(self) -> int:
        """Number of the tensor's weights, cut or not."""
        return math.prod(self.shape)

    @property
    def rise(self) -> tuple[float, ...]:
        """By how much the measure is worse at each density."""
        return tuple(after - self.before for after in self.after)


def sensitivity(
    model: nn.Module,
    data: Calibration = NO_DATA,
    *,
    masks: Masks | None = None,
    densities: Sequence[float] = (0.5, 0.2, 0.1),
    scorer: Scorer | None = None,
    measure: Badness | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Sensitivity, ...]:
    """Cut each prunable tensor alone, by `prune`, and measure; the model comes back bit for bit.

    Nothing is trained or re-estimated in between, BatchNorm's statistics neither. Every measurement starts from the
    same random state, in eval mode and without gradients.

    Args:
        model: the network, on any device.
        data: for the scorer and the measure.
        masks: the tensors to look at, and what is cut already; default `Masks.dense`.
        densities: shares of each tensor's weights to keep, in (0, 1]. A tensor that has fewer left keeps those.
        scorer: default ``magnitude()``; what looks at data once a cut is asked only once in all.
        measure: the network -> how bad it is; default `mean_loss` where the data have a loss, else `output_change`.
        progress: told how many measurements are done, and of how many.

    Returns:
        A row for each tensor, the most sensitive first: that which is worst at the lowest density.

    Raises:
        SelectionError: a density is out of range or none is given, or scorer or measure lack the data they need.
        MaskError: the masks do not fit the model.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False))
        >>> with torch.no_grad():
        ...     _ = model[0].weight.copy_(torch.eye(2)), model[1].weight.copy_(torch.tensor([[3.0, 4.0]]))
        >>> data = Calibration([torch.tensor([[1.0, 1.0]])])  # the output is 7
        >>> for row in sensitivity(model, data, densities=[0.5]):
        ...     print(row.tensor, row.kept, [round(7 * each, 4) for each in row.after])
        1.weight (1,) [3.0]
        0.weight (2,) [0.0]
    """
    falling = tuple(sorted({Density(each).value for each in densities}, reverse=True))
    if not falling:
        raise SelectionError("sensitivity() was given no density: pass some, e.g. densities=(0.5, 0.1).")
    held = masks if masks is not None else Masks.dense(model)
    held.revived(model)  # raises where the masks do not fit
    scored = _asked_once(scorer) if scorer is not None else None
    rows: list[Sensitivity] = []
    with preserved(model):
        bad = measure or _default(model, data)
        before = _measured(model, bad)
        for index, (name, mask) in enumerate(held.items()):
            alone = Masks({name: mask})
            cuts = [prune(model, alone, density, scorer=scored, data=data) for density in falling]
            after: list[float] = []
            for cut in cuts:
                after.append(before if cut.kept == alone.kept else _with(model, cut, bad))
                if progress is not None:
                    progress(index * len(falling) + len(after), len(held) * len(falling))
            kept = tuple(cut.kept for cut in cuts)
            rows.append(Sensitivity(name, index, tuple(mask.shape), falling, kept, before, tuple(after)))
    return tuple(sorted(rows, key=lambda row: (not math.isnan(row.after[-1]), -row.after[-1])))


def mean_loss(data: Calibration) -> Badness:
    """Return a measure: the mean of the calibration batches' losses."""
    return lambda model: statistics.fmean(float(loss) for loss in data.losses(model))


def output_change(model: nn.Module, data: Calibration) -> Badness:
    """Return a measure: the root mean square of how far the output is from now, over that of the output now.

    Args:
        model: runs once on each of the calibration's inputs, now.
        data: only its inputs are used.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> change = output_change(model, Calibration([torch.ones(1, 1)]))
        >>> with torch.no_grad():
        ...     _ = model.weight.mul_(0.75)
        >>> round(change(model), 6)
        0.25
    """
    inputs = list(data.inputs(model))
    with evaluating(model):
        wanted = [_flat(model(x)) for x in inputs]
    scale = sum(float(each.square().sum()) for each in wanted)
    if not scale:
        raise SelectionError("the network's output is zero on all of these inputs, so no change can be relative to it.")

    def change(model: nn.Module) -> float:
        errors = [_flat(model(x)) - each for x, each in zip(inputs, wanted, strict=True)]
        return math.sqrt(sum(float(error.square().sum()) for error in errors) / scale)

    return change


def _flat(made: Any) -> Tensor:
    leaves = [each.detach().double().flatten() for each in tree_leaves(made) if isinstance(each, Tensor)]
    return torch.cat(leaves)


def _default(model: nn.Module, data: Calibration) -> Badness:
    return mean_loss(data) if data.loss is not None else output_change(model, data)


def _asked_once(scorer: Scorer) -> Scorer:
    """Return the scorer with a memory, where all cuts ask it the same: the network is whole again before each."""
    if isinstance(scorer, PerTensor) or (isinstance(scorer, FromData) and scorer.times > 1):
        return scorer
    known: list[Scores] = []

    def score(model: nn.Module, data: Calibration) -> Scores:
        if not known:
            known.append(scorer(model, data))
        return known[0]

    return replace(scorer, score=score) if isinstance(scorer, FromData) else score


def _measured(model: nn.Module, measure: Badness) -> float:
    """Return the measure of the model, always from the same random state and buffers."""
    with preserved(model), evaluating(model):
        return float(measure(model))


def _with(model: nn.Module, cut: Masks, measure: Badness) -> float:
    """Return the measure with one more cut, which is then undone."""
    weights = [parameters(model)[name] for name in cut]
    before = [weight.detach().clone() for weight in weights]
    try:
        cut.apply_(model)
        return _measured(model, measure)
    finally:
        with torch.no_grad():
            for weight, was in zip(weights, before, strict=True):
                weight.copy_(was)
