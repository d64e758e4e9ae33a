"""Training and measuring a restoration network: the task itself, once its options are bound.

Axes: b batch, c channels, h height, w width.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import AdamW, Optimizer

from prunekit.data import batches, share
from prunekit.imaging import ImageCall
from prunekit.task import Measure, Sample
from prunekit_mir_l.dataset import Crops, as_tensor, evaluation_pair
from prunekit_mir_l.images import Floats, Pixels
from prunekit_mir_l.items import Item
from prunekit_mir_l.metrics import Metric, floats

SAMPLE_SIDE = 192
EXAMPLE_SIDE = 128


def cosine(t: int, *, total: int, warmup: int) -> float:
    """Return the published factor on the learning rate in unit ``t`` (epoch or step) of ``total``.

    It rises from 0 to 1 over ``warmup`` units and falls along a cosine that never reaches 0. A warm-up of 0 or 1 is
    none. Past the end the last factor stays.

    Example:
        >>> [round(cosine(t, total=10, warmup=2), 3) for t in range(5)]
        [0.0, 1.0, 1.0, 0.962, 0.854]

    Reference:
        arXiv 2510.14463, published code; there a warm-up of 0 trains at rate 0 for ever.
    """
    warmup = warmup if warmup > 1 else 0
    t = min(t, total - 1)
    return t / (warmup - 1) if t < warmup else (1 + math.cos(math.pi * (t - warmup) / (total - warmup))) / 2


@final
@dataclass(frozen=True)
class MirL:
    """The MIR-L task (see ``prunekit.task.Task``); built by ``task.mir_l``.

    Args:
        network: builds the network.
        call: how it wants to be called.
        crops: the training set.
        test: the test items.
        steps: length of a training in optimiser steps.
        unit: optimiser steps for which the learning rate stays the same.
        warmup: such units in which it rises.
        rate: base learning rate.
        weight_decay: of every parameter.
        batch: samples per step, over all processes.
        workers: loader processes.
        seed: of the data order.
        test_crop: largest side of a test image; None for no limit.
        metrics: what is measured; the first is what short tables show.
    """

    network: Callable[[], nn.Module]
    call: ImageCall
    crops: Crops
    test: tuple[Item, ...]
    steps: int
    unit: int
    warmup: int
    rate: float
    weight_decay: float
    batch: int
    workers: int
    seed: int
    test_crop: int | None
    metrics: tuple[Metric, ...]

    def model(self) -> nn.Module:
        """Build a fresh network on the CPU."""
        return self.network()

    def optimizer(self, model: nn.Module) -> Optimizer:
        """Build AdamW, with weight decay on every parameter as published."""
        return AdamW(model.parameters(), lr=self.rate, weight_decay=self.weight_decay, fused=True)

    def lr(self, clock: int) -> float:
        """Return the factor on the base rate at step ``clock``."""
        return cosine(clock // self.unit, total=math.ceil(self.steps / self.unit), warmup=self.warmup)

    def batches(self, clock: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (input, target) pairs from step ``clock`` on: uint8 of shape (batch, channels, patch, patch)."""
        pin = torch.cuda.is_available()
        return batches(self.crops, size=self.batch, seed=self.seed, clock=clock, workers=self.workers, pin=pin)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return the mean absolute error of the unclamped output, on the scale of [0, 1]."""
        like = next(model.parameters())
        x_bchw, target_bchw = (pixels.to(like.device, like.dtype) / 255 for pixels in batch)
        return functional.l1_loss(self.call(model, x_bchw), target_bchw)

    def evaluate(self, model: nn.Module) -> list[Measure]:
        """Measure this process's test images, beside the untreated inputs."""
        return [measure for item in share(self.test) for measure in self._measures(model, item)]

    def example(self) -> Tensor:
        """Return what the network is given for the centre of the first test input, of at most 128 pixels a side.

        Returns:
            Float, shape (1, channels, height, width): padded, and with constant channels, where the network wants it.
        """
        given, _ = evaluation_pair(self.test[0], limit=EXAMPLE_SIDE, in_grey=self.crops.in_grey)
        return self.call.input(nn.Identity(), _batch(given))

    def samples(self, model: nn.Module) -> list[Sample]:
        """Return the centre of the first test image of each task, at most 192 pixels a side."""
        first = {item.task: item for item in reversed(self.test)}
        return [self._sample(model, first[task]) for task in dict.fromkeys(item.task for item in self.test)]

    def picture(self, model: nn.Module, measure: Measure) -> Sample:
        """Return the centre of the test image that was measured, at most 192 pixels a side."""
        wanted = (measure.task, measure.dataset, measure.item)
        return self._sample(model, next(item for item in self.test if (item.task, item.dataset, item.name) == wanted))

    def fingerprint(self) -> str:
        """Return a text that changes with any image's name, size in bytes, or place among the items."""
        digest = hashlib.blake2b(digest_size=8)
        for item in (*dict.fromkeys(self.crops.items), *self.test):
            for path in (item.target, item.input):
                size = f"{path.name} {path.stat().st_size}" if path else "-"
                digest.update(f"{item.task} {item.dataset} {size}\n".encode())
        return digest.hexdigest()

    def _measures(self, model: nn.Module, item: Item) -> Iterator[Measure]:
        given, target = evaluation_pair(item, limit=self.test_crop, in_grey=self.crops.in_grey)
        restored, seen, wanted = self._restored(model, given), floats(given), floats(target)
        where = f"; centre of at most {self.test_crop} px" if self.test_crop else ""
        for metric in self.metrics:
            yield Measure(
                *(item.task, item.dataset, item.name, metric.name, metric(restored, wanted), metric.protocol + where),
                higher_is_better=metric.higher_is_better,
                baseline=metric(seen, wanted),
            )

    def _sample(self, model: nn.Module, item: Item) -> Sample:
        given, target = evaluation_pair(item, limit=SAMPLE_SIDE, in_grey=self.crops.in_grey)
        output = (self._restored(model, given).clip(0, 1) * 255).round().astype("uint8")
        images = {"input": given, "output": output, "target": target}
        in_rgb = {name: np.repeat(pixels, 3 // pixels.shape[2], axis=2) for name, pixels in images.items()}
        return Sample(item.task, item.name, {name: torch.from_numpy(pixels) for name, pixels in in_rgb.items()})

    @torch.no_grad()
    def _restored(self, model: nn.Module, given: Pixels) -> Floats:
        """Return a network's output for one image: float32, shape (height, width, channels), not clipped."""
        output_bchw = self.call(model, _batch(given))
        output: Floats = output_bchw[0].permute(1, 2, 0).float().cpu().numpy()
        return output


def _batch(pixels: Pixels) -> Tensor:
    return as_tensor(pixels)[None].float() / 255
