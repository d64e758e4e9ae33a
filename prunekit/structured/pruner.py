"""Structured pruning: channels go, with all that belongs to them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from prunekit.amount import MacDensity, Target
from prunekit.budget import budget
from prunekit.calibration import Calibration
from prunekit.errors import SelectionError
from prunekit.measure import count_macs
from prunekit.preserve import preserved
from prunekit.score import FromData, PerTensor, Scorer
from prunekit.select import parameters
from prunekit.shape import Shape
from prunekit.structured.choose import Choice, Unmet, fewest
from prunekit.structured.declare import read
from prunekit.structured.find import Finder, Found
from prunekit.structured.fit import find_fitting
from prunekit.structured.resize import resized
from prunekit.structured.torch_pruning import find_by_torch_pruning
from prunekit.structured.trial import fresh, hollow, refuse_example, refuse_misfit, run, shrunk
from prunekit.structured.units import Units, united
from prunekit.target import on_the_way

FINDERS: Mapping[str, Finder] = {"graph": find_fitting, "torch_pruning": find_by_torch_pruning}


@final
@dataclass(frozen=True)
class Structured:
    """Cut whole channels: a scorer says what each weight is worth, and what goes together is summed up.

    Args:
        scorer: e.g. ``magnitude()``, ``taylor()``, ``random(seed=0)``.
        across: ``"global"``: channels compete with all others, each by its worth as a share of the mean of its group;
            ``"local"``: every group loses the same share.
        multiple: of each group a multiple of so many channels is kept, for hardware that likes it.
        least: fewest channels of a group that are kept.
        power: scores are raised to it before they are summed up over a channel: 1 for L1 norms, 2 for L2 norms.
        exclude: globs over parameters whose channels all stay.
        declared: what classes of modules say of their channels, beside those that say it themselves.
        finder: ``"graph"``: reads what goes together from the graph that ``torch.export`` traces; ``"torch_pruning"``:
            from torch-pruning's, for networks that cannot be traced so.
        seconds: most time for finding what goes together, and again for choosing among it.
        mib: most memory beside the network's own, for the same.

    Reference:
        Li et al. 2017, arXiv 1608.08710 (filters by their norm); Fang et al. 2023 (DepGraph), arXiv 2301.12900 (layers
        that go together). Here dependencies are followed index by index, heads and halves lose each their own channels,
        and targets are met by trying.

    Example:
        >>> import torch
        >>> from prunekit.amount import Density
        >>> from prunekit.score import magnitude
        >>> model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> pruner = Structured(magnitude())
        >>> data = Calibration([torch.zeros(1, 3)])
        >>> pruner.cut(model, pruner.start(model), Density(0.5), data)
        Shape(20 of 50 kept, 3 tensors smaller)
    """

    scorer: Scorer
    _: KW_ONLY
    across: str = "global"
    multiple: int = 1
    least: int = 1
    power: int = 1
    exclude: tuple[str, ...] = ()
    declared: Mapping[Any, Any] | None = None  # a class, or "package.module:Class" -> Channels, or its fields
    finder: str = "graph"
    seconds: float = 600.0
    mib: float = 8192.0

    def __post_init__(self) -> None:
        if self.finder not in FINDERS:
            raise SelectionError(f"finder must be {' or '.join(FINDERS)}, not {self.finder!r}.")
        read(self.declared or {})  # refuse now what would be found wrong in a cut

    def start(self, model: nn.Module) -> Shape:
        """Return the shape that leaves the network whole."""
        return Shape.dense(model)

    def cut(self, model: nn.Module, now: Shape, amount: Target, data: Calibration) -> Shape:
        """Return the largest shape within ``now`` that has at most what is asked; the model stays as it was.

        Args:
            model: in the shape ``now``.
            now: its shape.
            amount: parameters or multiply-adds; met from below, as channels have a size.
            data: the network is traced, and multiply-adds are counted, with its example, or else with its first input.

        Raises:
            SelectionError: even the smallest network is larger; or the network's code does not take fewer channels.
            CheckpointError: the network cannot be traced.
            BudgetError: it took more time or memory than it may; names the module.
        """
        times = self.scorer.times if isinstance(self.scorer, FromData) else 1
        shape, work = now, model
        with preserved(model, weights=not isinstance(self.scorer, (PerTensor, FromData))):
            for step in on_the_way(now, amount, times):
                if shape is not now:
                    work = shrunk(model, shape, now)
                shape = shape.then(self._once(work, shape, step, data))
        return shape

    def load(self, state: Mapping[str, Tensor]) -> Shape:
        """Return the shape that ``Shape.state_dict`` described."""
        return Shape.load(state)

    def _once(self, model: nn.Module, now: Shape, amount: Target, data: Calibration) -> Shape:
        """Return a shape of the model as it is, which has the shape ``now``."""
        example = _example(model, data)
        refuse_example(model, example)
        declared, scores = read(self.declared or {}), self.scorer(model, data)
        with budget(
            seconds=self.seconds, mib=self.mib, model=model, what="finding which channels go together"
        ) as limit:
            found = FINDERS[self.finder](model, example, exclude=self.exclude, declared=declared, limit=limit)
        units = united(found, scores.get, power=self.power)
        choice = Choice(units, self.across, self.multiple, self.least)

        def made(kept: NDArray[np.bool_]) -> Shape:
            return resized(model, found, units, kept, declared)

        cost, most = _cost(model, now, amount, units, example, made)
        try:
            with budget(seconds=self.seconds, mib=self.mib, what="choosing channels"):
                shape = made(fewest(choice, cost, most))
        except Unmet as unmet:
            raise SelectionError(_unmet(model, found, amount, unmet.least, most)) from None
        refuse_misfit(model, shrunk(model, shape), example)
        return shape


def _example(model: nn.Module, data: Calibration) -> Any:
    """Return one input: the example that the data come with, or the first of a batch."""
    if data.example is not None:
        return data.example
    return tree_map(lambda leaf: leaf[:1] if isinstance(leaf, Tensor) else leaf, next(iter(data.inputs(model))))


Cost = Callable[[NDArray[np.bool_]], float]


def _cost(
    model: nn.Module,
    now: Shape,
    amount: Target,
    units: Units,
    example: Any,
    made: Callable[[NDArray[np.bool_]], Shape],
) -> tuple[Cost, float]:
    """Return what a network with some units costs, in parameters or multiply-adds, and what it may."""
    if isinstance(amount, MacDensity):
        empty, shapes = hollow(model, example)

        def macs(kept: NDArray[np.bool_]) -> int:
            smaller = shrunk(empty, made(kept))
            run(smaller, shapes)
            return count_macs(smaller, fresh(shapes)).dense

        here = macs(np.ones(len(units.worth), dtype=bool))
        if now.density == 1 and here != amount.total:
            raise SelectionError(
                f"the target is a share of {amount.total:,} multiply-adds, and this network does {here:,} for one "
                "input: they were counted on an input of another size. Pass it: prunekit.Calibration(..., example=x)."
            )
        return macs, amount.limit

    def entries(kept: NDArray[np.bool_]) -> float:
        lengths = {axis: int(kept[ids].sum()) for axis, ids in units.axes.items()}
        return sum(
            math.prod(lengths.get((name, axis), size) for axis, size in enumerate(parameter.shape))
            for name, parameter in parameters(model).items()
        )

    return entries, amount.keep(now.kept, now.prunable)


def _unmet(model: nn.Module, found: Found, amount: Target, least: float, limit: float) -> str:
    """Return a message that says how far a cut can go, and what cannot shrink."""
    free, named = {name for name, _ in found.axes}, parameters(model)
    whole = sorted(named.keys() - free, key=lambda name: (-named[name].numel(), name))
    what = "multiply-adds" if isinstance(amount, MacDensity) else "parameters"
    held = f" No channel can go of these, the largest: {', '.join(whole[:3])}." if whole else ""
    return (
        f"no structured cut leaves {limit:,.0f} {what} or fewer: with every channel gone that can go there are "
        f"{least:,.0f}.{held} Ask for more, exclude less, lower least or multiple, or declare what the network's "
        "code needs (prunekit.Channels)."
    )
