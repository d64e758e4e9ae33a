"""Pruning: what a cut and a pruner are, the unstructured one, and the sums between the two densities."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import KW_ONLY, dataclass
from typing import Any, Protocol, Self, TypeVar, final

import torch
from torch import Tensor, nn

from prunekit.allocate import Allocation, everywhere
from prunekit.errors import SelectionError
from prunekit.masks import Masks
from prunekit.schedule import Amount, Density
from prunekit.score import Calibration, PerTensor, Scorer, magnitude


class Cut(Protocol):
    """What was cut, as a value that can be applied to a fresh dense model; ``Masks`` is one."""

    @property
    def density(self) -> float:
        """Share of the prunable entries that is kept."""

    def apply_(self, model: nn.Module, since: Self | None = None) -> None:
        """Cut the model; ``since`` is an earlier cut that it already has."""

    def state_dict(self) -> dict[str, Any]:
        """Return tensors for safetensors, from which the pruner's ``load`` makes an equal cut."""


C = TypeVar("C", bound=Cut)


class Pruner(Protocol[C]):
    """A way to cut a model in steps; ``Unstructured`` is one."""

    def start(self, model: nn.Module) -> C:
        """Return the cut that cuts nothing."""

    def cut(self, model: nn.Module, now: C, amount: Amount, data: Calibration) -> C:
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
        include, exclude, types: which parameters are prunable, as in ``prunekit.prunable``.

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

    def cut(self, model: nn.Module, now: Masks, amount: Amount, data: Calibration) -> Masks:
        """Return masks within ``now`` of exactly the asked amount; the model stays as it was, bit for bit."""
        return prune(model, now, amount, scorer=self.scorer, allocation=self.allocation, data=data)

    def load(self, state: Mapping[str, Any]) -> Masks:
        """Return the masks that ``Masks.state_dict`` described."""
        return Masks.load(state)


def prune(
    model: nn.Module,
    masks: Masks,
    amount: float | Amount,
    *,
    scorer: Scorer | None = None,
    allocation: Allocation | None = None,
    data: Calibration | None = None,
) -> Masks:
    """Return masks that keep less than ``masks``; the model is only read.

    Args:
        model: the trained network; whatever a scorer changes in it, random state included, is put back.
        masks: what is kept now; nothing they cut comes back.
        amount: density in (0, 1], the share of the prunable weights that is kept afterwards, or an ``Amount``.
        scorer: default ``magnitude()``.
        allocation: default ``everywhere()``.
        data: for scorers that look at inputs or losses.

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
    untouched: AbstractContextManager[None] = nullcontext() if isinstance(score, PerTensor) else _preserved(model)
    with untouched:
        return allocate(score(model, data or NO_DATA), masks, asked)


def solve_total(target: float, sizes: Mapping[str, int], prunable: Collection[str]) -> float:
    """Return the density of the prunable parameters at which ``target`` of *all* parameters is kept.

    Args:
        target: share of all parameters that is not cut, in (0, 1].
        sizes: parameter name -> number of entries, all of the network's.
        prunable: the names that may be cut.

    Returns:
        A density d such that ``Density(d)`` keeps exactly ``round(target * total)`` parameters in all.

    Raises:
        SelectionError: the rest alone is that much or more; its largest tensors are named.

    Example:
        >>> solve_total(0.5, {"conv.weight": 80, "prompt": 20}, ["conv.weight"])
        0.375
    """
    total = sum(sizes.values())
    free = sum(sizes[name] for name in prunable)
    left = round(Density(target).value * total) - (total - free)
    if left <= 0:
        fixed = sorted(sizes.keys() - set(prunable), key=lambda name: (-sizes[name], name))[:3]
        held = ", ".join(f"{name} {sizes[name]:,}" for name in fixed) or "nothing"
        raise SelectionError(
            f"cannot keep {target:.2%} of all {total:,} parameters: those that are not prunable are "
            f"{(total - free) / total:.2%} ({total - free:,}; the largest: {held}). Ask for more, or include them."
        )
    return left / free


@contextmanager
def _preserved(model: nn.Module) -> Iterator[None]:
    """Put back whatever a scorer does to the model and to the random state, even if it raises."""
    tensors = [(tensor, tensor.detach().clone()) for tensor in (*model.parameters(), *model.buffers())]
    gradients = [(parameter, parameter.grad, parameter.requires_grad) for parameter in model.parameters()]
    modes = [(module, module.training) for module in model.modules()]
    python_state = random.getstate()
    devices = {tensor.device for tensor, _ in tensors if tensor.is_cuda}
    try:
        for parameter, _, _ in gradients:
            parameter.grad = None
        with torch.random.fork_rng(devices=list(devices)):
            yield
    finally:
        random.setstate(python_state)
        for module, mode in modes:
            module.training = mode
        for parameter, gradient, required in gradients:
            parameter.grad = gradient
            parameter.requires_grad_(required)
        with torch.no_grad():
            for tensor, before in tensors:
                tensor.copy_(before)


@final
@dataclass(frozen=True)
class _NoData:
    """Calibration for scorers that need none."""

    def inputs(self) -> Iterator[Any]:
        raise SelectionError("this scorer looks at network inputs: pass data=, an object with inputs().")

    def losses(self, model: nn.Module) -> Iterator[Tensor]:
        raise SelectionError("this scorer looks at losses: pass data=, an object with losses(model).")


NO_DATA: Calibration = _NoData()
"""What ``prune`` gives to a scorer when no data was passed: asking it for any is an error that says so."""
