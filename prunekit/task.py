"""What a plugin writes: one training problem, as the few questions the training loop asks of it."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, final, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_map

from prunekit.calibration import Calibration

CALIBRATION_BATCHES = 8


@final
@dataclass(frozen=True)
class Measure:
    """One number of one item, from which intervals and tables are made.

    Args:
        task: what was asked of the network, e.g. ``"denoise_25"``.
        dataset: name of the set the item belongs to.
        item: name of the item within the set.
        metric: e.g. ``"psnr"``.
        value: the metric of the network's output.
        protocol: exactly how it was computed; travels with every number.
        higher_is_better: which way is up.
        baseline: the same metric of the untreated input, where that makes sense.
    """

    task: str
    dataset: str
    item: str
    metric: str
    value: float
    protocol: str
    higher_is_better: bool = True
    baseline: float | None = None


@final
@dataclass(frozen=True)
class Mean:
    """The mean of a metric over the ``n`` items of a data set; ``baseline`` where every item has one."""

    task: str
    dataset: str
    metric: str
    value: float
    n: int
    baseline: float | None
    higher_is_better: bool
    protocol: str


def averages(measures: Iterable[Measure]) -> tuple[Mean, ...]:
    """Return the means over items by task, data set and metric, in the order in which these appear."""
    groups: dict[tuple[str, str, str], list[Measure]] = {}
    for measure in measures:
        groups.setdefault((measure.task, measure.dataset, measure.metric), []).append(measure)
    return tuple(_mean(group) for group in groups.values())


def _mean(measures: Sequence[Measure]) -> Mean:
    first = measures[0]
    inputs = [measure.baseline for measure in measures if measure.baseline is not None]
    return Mean(
        first.task,
        first.dataset,
        first.metric,
        statistics.fmean(measure.value for measure in measures),
        len(measures),
        statistics.fmean(inputs) if len(inputs) == len(measures) else None,
        first.higher_is_better,
        " / ".join(dict.fromkeys(measure.protocol for measure in measures)),
    )


@final
@dataclass(frozen=True)
class Sample:
    """Pictures of one item for the report: name -> uint8 tensor of shape (height, width, 3).

    ``images`` holds ``"input"`` and ``"output"``, and ``"target"`` where there is one, all of one size.
    """

    task: str
    item: str
    images: Mapping[str, Tensor]


class Task(Protocol):
    """One training problem. Everything here is deterministic: the same arguments give the same bits.

    A factory registered under the entry-point group ``prunekit.task`` builds it: a function of keyword options, one of
    which is ``seed: int``.
    """

    @property
    def steps(self) -> int:
        """Length of one full training, in optimiser steps."""

    def model(self) -> nn.Module:
        """Build a fresh network on the CPU; the caller has seeded torch."""

    def optimizer(self, model: nn.Module) -> Optimizer:
        """Build a new optimiser over ``model``'s parameters, at the base learning rates."""

    def lr(self, clock: int) -> float:
        """Return the factor on each parameter group's base rate at step ``clock``; pure."""

    def batches(self, clock: int) -> Iterator[Any]:
        """Yield this process's share of the batches from step ``clock`` on (see ``prunekit.data``)."""

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Run one forward pass and return the mean loss of the batch, a scalar ready for ``backward``."""

    def evaluate(self, model: nn.Module) -> Sequence[Measure]:
        """Measure this process's share of the test items; the model is in eval mode, gradients are off."""

    def example(self) -> Any:
        """Return one network input (a tensor with a batch axis), for MACs and latency."""

    def samples(self, model: nn.Module) -> Sequence[Sample]:
        """Return pictures for the report; may be empty. The model is in eval mode, gradients are off."""

    def fingerprint(self) -> str:
        """Return a short text that changes when the data does; a run refuses to resume on other data."""


@runtime_checkable
class Pictured(Protocol):
    """What a task may have besides: pictures of any item, so that a report can show the worst ones."""

    def picture(self, model: nn.Module, measure: Measure) -> Sample:
        """Return pictures of the item that was measured; the model is in eval mode, gradients are off."""


def worst(measures: Iterable[Measure]) -> tuple[Measure, ...]:
    """Return the worst item of each task by the first metric, in the order of the tasks; of equals the first.

    Example:
        >>> made = [Measure("blur", "set", item, "psnr", value, "") for item, value in (("a", 30.0), ("b", 20.0))]
        >>> [measure.item for measure in worst(made)]
        ['b']
    """
    found: dict[str, Measure] = {}
    metric = None
    for measure in measures:
        metric = metric or measure.metric
        if measure.metric == metric:
            sign = 1 if measure.higher_is_better else -1
            if measure.task not in found or sign * measure.value < sign * found[measure.task].value:
                found[measure.task] = measure
    return tuple(found.values())


def task_data(task: Task, device: torch.device, movement: Mapping[str, Tensor] | None = None) -> Calibration:
    """Return what a pruner may ask of a task: the first batches of its training data, and its example input."""

    def batches() -> Iterator[Any]:
        source = task.batches(0)
        try:
            for batch in islice(source, CALIBRATION_BATCHES):
                yield to_device(batch, device)
        finally:
            getattr(source, "close", lambda: None)()  # ends loader workers

    return Calibration(batches, task.loss, movement, to_device(task.example(), device))


def to_device(batch: Any, device: torch.device) -> Any:
    """Move every tensor of a nested batch."""
    return tree_map(lambda x: x.to(device, non_blocking=True) if isinstance(x, Tensor) else x, batch)
