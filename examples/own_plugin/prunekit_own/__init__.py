"""A whole plugin: one task and a recipe for it, found by name through the entry points in pyproject.toml.

pip install -e . && prunekit run sines

Without installing it, from this folder: prunekit run prunekit_own/sines.yaml task.name=python:prunekit_own:sines
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import prunekit as pk

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Sines:
    """Denoise short sine waves."""

    steps: int
    width: int
    seed: int

    def model(self) -> nn.Module:
        """Build a small multi-layer perceptron."""
        return nn.Sequential(nn.Linear(32, self.width), nn.ReLU(), nn.Linear(self.width, 32))

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Use AdamW."""
        return torch.optim.AdamW(model.parameters(), lr=3e-3)

    def lr(self, clock: int) -> float:
        """Fall linearly to a tenth."""
        return 1 - 0.9 * clock / self.steps

    def __len__(self) -> int:
        return 4096

    def sample(self, epoch: int, index: int) -> Batch:
        """Return one (noisy, clean) pair, a function of (seed, epoch, index) alone."""
        random = pk.generator("sines", self.seed, epoch, index)
        clean = torch.sin(torch.linspace(0, 6.3, 32) + float(random.uniform(0, 6.3)))
        return clean + 0.5 * torch.from_numpy(random.standard_normal(32)).float(), clean

    def batches(self, clock: int) -> Iterator[Batch]:
        """Yield batches of 64 from any step on."""
        return pk.batches(self, size=64, seed=self.seed, clock=clock)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the mean squared error."""
        return nn.functional.mse_loss(model(batch[0]), batch[1])

    def evaluate(self, model: nn.Module) -> Sequence[pk.Measure]:
        """Measure 50 waves that training never sees."""
        measures = []
        for index in pk.share(range(50)):
            noisy, clean = self.sample(-1, index)
            error, before = (float((x - clean).square().mean()) for x in (model(noisy[None])[0], noisy))
            measures.append(pk.Measure("denoise", "sines", str(index), "mse", error, "mean", False, before))
        return measures

    def example(self) -> Tensor:
        """Return one input."""
        return torch.zeros(1, 32)

    def samples(self, model: nn.Module) -> Sequence[pk.Sample]:
        """There are no pictures."""
        return []

    def fingerprint(self) -> str:
        """Return what the data depends on."""
        return "sines-1"


def sines(*, steps: int = 300, width: int = 128, seed: int) -> Sines:
    """Return the task."""
    return Sines(steps, width, seed)
