"""A 25-line Task: a small network with batch norm and dropout learns a fixed linear map of noise."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import prunekit as pk
from prunekit.task import Measure, Sample


@dataclass(frozen=True)
class Toy:
    seed: int
    steps: int
    workers: int
    dtype: torch.dtype
    step_s: float
    nan_at: int
    unused: bool
    dropout: float
    batch_norm: bool

    def model(self) -> nn.Module:
        layers = nn.Sequential(
            nn.Linear(6, 16),
            nn.BatchNorm1d(16) if self.batch_norm else nn.LayerNorm(16),
            nn.ReLU(),
            nn.Dropout(self.dropout),
            nn.Linear(16, 3),
        )
        if self.unused:
            layers.register_parameter("idle", nn.Parameter(torch.ones(2)))
        return layers.to(self.dtype)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW(model.parameters(), lr=0.01)

    def lr(self, clock: int) -> float:
        return 1 - clock / (2 * self.steps)

    def __len__(self) -> int:
        return 64

    def sample(self, epoch: int, index: int) -> tuple[Tensor, Tensor]:
        x = torch.from_numpy(pk.generator("toy", self.seed, epoch, index).standard_normal(6)).to(self.dtype)
        if (epoch, index) == (0, self.nan_at):
            x = x * float("nan")
        return x, torch.stack([x[:2].sum(), x[2] - x[3], x[4:].mean()])

    def batches(self, clock: int) -> Iterator[Any]:
        return pk.batches(self, size=8, seed=self.seed, clock=clock, workers=self.workers)

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        if self.step_s:
            time.sleep(self.step_s)
        loss = nn.functional.mse_loss(model(batch[0]), batch[1])
        return loss

    def evaluate(self, model: nn.Module) -> Sequence[Measure]:
        device = next(model.parameters()).device
        measures = []
        for index in pk.share(range(6)):
            x, y = self.sample(-1, index)
            error = nn.functional.mse_loss(model(x[None].to(device))[0].cpu(), y)
            measures.append(
                Measure("toy", "noise", f"{index}", "mse", float(error), "mean", False, float(y.square().mean()))
            )
            time.sleep(self.step_s)
        return measures

    def example(self) -> Tensor:
        return torch.zeros(1, 6, dtype=self.dtype)

    def samples(self, model: nn.Module) -> Sequence[Sample]:
        picture = torch.full((8, 8, 3), 100, dtype=torch.uint8)
        return [Sample("toy", "0", {"input": picture, "output": picture, "target": picture})]

    def picture(self, model: nn.Module, measure: Measure) -> Sample:
        return Sample(measure.task, measure.item, {"output": torch.full((8, 8, 3), 50, dtype=torch.uint8)})

    def fingerprint(self) -> str:
        return f"toy {self.seed}"


def toy(
    *,
    steps: int = 20,
    workers: int = 0,
    double: bool = False,
    step_s: float = 0.0,
    nan_at: int = -1,
    unused: bool = False,
    dropout: float = 0.1,
    batch_norm: bool = True,
    seed: int = 0,
) -> Toy:
    return Toy(
        seed, steps, workers, torch.float64 if double else torch.float32, step_s, nan_at, unused, dropout, batch_norm
    )
