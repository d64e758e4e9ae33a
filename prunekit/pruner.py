"""Pruning: what a cut and a pruner are, and the unstructured one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, Protocol, Self, TypeVar, final

from torch import nn

from prunekit.allocate import Allocation, everywhere
from prunekit.amount import Density, Target
from prunekit.calibration import Calibration
from prunekit.masks import Masks
from prunekit.preserve import preserved
from prunekit.score import FromData, PerTensor, Scorer, magnitude
from prunekit.target import among, meet, on_the_way

NO_DATA = Calibration()
"""What ``prune`` gives to a scorer when no data was passed: asking it for any is an error that says so."""


class Cut(Protocol):
    """What was cut, as a value that can be applied to a fresh dense model; ``Masks`` and ``Shape`` are."""

    @property
    def kept(self) -> int:
        """Number of prunable entries that are kept."""

    @property
    def prunable(self) -> int:
        """Number of entries of the dense model's parameters that may be cut."""

    @property
    def density(self) -> float:
        """Share of the prunable entries that is kept."""

    def per_tensor(self) -> dict[str, tuple[int, int]]:
        """Return name -> (kept, prunable) of every parameter that may be cut, in model order."""

    def emptied(self) -> tuple[str, ...]:
        """Return the names of parameters of which nothing is kept."""

    def digest(self) -> str:
        """Return a short text, equal exactly where cuts are; for processes to compare."""

    def apply_(self, model: nn.Module, since: Self | None = None) -> None:
        """Cut the model; ``since`` is an earlier cut that it already has."""

    def state_dict(self) -> dict[str, Any]:
        """Return tensors for safetensors, from which the pruner's ``load`` makes an equal cut."""


C = TypeVar("C", bound=Cut)


class Pruner(Protocol[C]):
    """A way to cut a model in steps; ``Unstructured`` is one."""

    def start(self, model: nn.Module) -> C:
        """Return the cut that cuts nothing."""

    def cut(self, model: nn.Module, now: C, amount: Target, data: Calibration) -> C:
        """Return the next cut, leaving weights, buffers, gradients, modes and random state as they were."""

    def load(self, state: Mapping[str, Any]) -> C:
        """Return the cut that ``state_dict`` described."""


@final
@dataclass(frozen=True)
class Unstructured:
    """Cut single weights: a scorer ranks them, an allocation says how many each tensor keeps.

    Args:
        scorer: e.g. ``magnitude()``.
        allocation: e.g. ``everywhere()``.
        include: globs of the parameters that are prunable, as in ``prunekit.prunable``.
        exclude: globs of parameters that are not.
        types: module types whose weights are.

    Example:
        >>> pruner = Unstructured(magnitude(), everywhere())
        >>> model = nn.Linear(4, 4)
        >>> pruner.cut(model, pruner.start(model), Density(0.25), NO_DATA)
        Masks(4 of 16 kept, 1 tensors)
    """

    scorer: Scorer
    allocation: Allocation
    _: KW_ONLY
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    types: tuple[str, ...] = ()

    def start(self, model: nn.Module) -> Masks:
        """Return dense masks over what is prunable."""
        return Masks.dense(model, include=self.include, exclude=self.exclude, types=self.types)

    def cut(self, model: nn.Module, now: Masks, amount: Target, data: Calibration) -> Masks:
        """Return masks within ``now`` of exactly the asked amount; the model stays as it was, bit for bit."""
        return prune(model, now, amount, scorer=self.scorer, allocation=self.allocation, data=data)

    def load(self, state: Mapping[str, Any]) -> Masks:
        """Return the masks that ``Masks.state_dict`` described."""
        return Masks.load(state)


def prune(
    model: nn.Module,
    masks: Masks,
    amount: float | Target,
    *,
    scorer: Scorer | None = None,
    allocation: Allocation | None = None,
    data: Calibration = NO_DATA,
) -> Masks:
    """Return masks that keep less than ``masks``; the model is only read.

    Args:
        model: the trained network; whatever a scorer changes in it, random state included, is put back.
        masks: what is kept now; nothing they cut comes back.
        amount: density in (0, 1], the share of the prunable weights that is kept afterwards; or a ``Density``, ``Rate``
            or ``MacDensity``.
        scorer: default ``magnitude()``.
        allocation: default ``everywhere()``.
        data: for scorers that look at inputs, losses or training.

    Raises:
        SelectionError: the amount is out of range, a score is missing or NaN, or the scorer needs data.
        MaskError: masks or scores do not fit the model.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3))
        >>> masks = prune(model, Masks.dense(model), 0.1)
        >>> masks.kept, masks.prunable
        (50, 504)
    """
    asked = Density(amount) if isinstance(amount, float | int) else amount
    score, allocate = scorer or magnitude(), allocation or everywhere()
    if isinstance(score, PerTensor):
        return meet(score(model, NO_DATA), masks, asked, allocate)
    times = score.times if isinstance(score, FromData) else 1
    with preserved(model, weights=times > 1 or not isinstance(score, FromData)):
        found = masks
        for step in on_the_way(masks, asked, times):
            if times > 1:
                found.apply_(model)  # what a small cut leaves is what the next one scores
            scores = score(model, data)
            found = meet(among(scores, found) if times > 1 else scores, masks, step, allocate)
    return found
