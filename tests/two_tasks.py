"""The toy of two tasks: one output for each, and training and measuring on those that are named."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from toy import Toy, toy

from prunekit.task import Measure, Sample

TASKS = ("sum", "gap")


@dataclass(frozen=True)
class TwoTasks:
    toy: Toy
    tasks: tuple[str, ...]

    @property
    def steps(self) -> int:
        return self.toy.steps

    def model(self) -> nn.Module:
        return self.toy.model()

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return self.toy.optimizer(model)

    def lr(self, clock: int) -> float:
        return self.toy.lr(clock)

    def batches(self, clock: int) -> Iterator[Any]:
        return self.toy.batches(clock)

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        columns = [TASKS.index(task) for task in self.tasks]
        return nn.functional.mse_loss(model(batch[0])[:, columns], batch[1][:, columns])

    def evaluate(self, model: nn.Module) -> Sequence[Measure]:
        measures = []
        for index in range(6):
            x, y = self.toy.sample(-1, index)
            off = (model(x[None])[0] - y).square()
            for task in self.tasks:
                value = float(off[TASKS.index(task)])
                measures.append(Measure(task, "noise", f"{index}", "mse", value, "mean", higher_is_better=False))
        return measures

    def example(self) -> Tensor:
        return self.toy.example()

    def samples(self, model: nn.Module) -> Sequence[Sample]:
        return []

    def fingerprint(self) -> str:
        return f"two tasks {self.toy.seed}"


def two_tasks(*, steps: int = 20, tasks: Sequence[str] = TASKS, seed: int = 0) -> TwoTasks:
    return TwoTasks(toy(steps=steps, seed=seed), tuple(tasks))
