"""A classification task that needs no data of one's own: scikit-learn's handwritten digits, for any network by name.

Axes: b batch, c channels, h height, w width, k classes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import AdamW, Optimizer

from prunekit.data import batches, share
from prunekit.errors import PluginError, RecipeError
from prunekit.network import Network, bind_network
from prunekit.recipe import Named
from prunekit.task import Measure, Sample

CLASSES = 10
BRIGHTEST = 16
SIDE = 32
CHUNK = 150  # test images in one forward pass
NETWORK = Named.model_validate({"name": "timm:test_resnet", "num_classes": CLASSES})


def digits(
    *,
    network: Network = NETWORK,
    side: int | None = None,
    steps: int = 300,
    batch: int = 32,
    lr: float = 2e-3,
    weight_decay: float = 0.05,
    seed: int = 0,
) -> Digits:
    """Build the task; reads the images out of scikit-learn's package, and runs the network once.

    Args:
        network: a classifier of ten classes by name and options (see ``prunekit.network.bind_network``), or a factory.
            A recipe gives ``num_classes: 10`` to any network that has such an option.
        side: pixels to which images of 8x8 are enlarged; None takes 32, or what the network was made for where it
            takes no 32 (as timm's vision transformers).
        steps: length of a training in optimiser steps.
        batch: images per optimiser step, over all processes.
        lr: the base rate of AdamW; it falls along a cosine.
        weight_decay: of every parameter.
        seed: of the data order. The split is always the same: every fourth image is a test image.

    Raises:
        RecipeError: an option has no meaning, or the network does not give ten numbers an image.
        PluginError: scikit-learn is missing.

    Example:
        >>> flat = lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 10))
        >>> task = digits(network=flat, side=8)
        >>> len(task), len(task.test_labels), task.example().shape
        (1347, 450, torch.Size([1, 3, 8, 8]))
    """
    if steps < 1 or batch < 1 or not (side is None or side >= 1):
        raise RecipeError(f"steps ({steps}), batch ({batch}) and side ({side}) must be at least 1.")
    if not lr > 0 or weight_decay < 0:
        raise RecipeError(f"lr ({lr}) must be positive, and weight_decay ({weight_decay}) not negative.")
    images_bhw, labels = _images()
    build = bind_network(network)
    with torch.random.fork_rng(devices=[]):
        fitting = _fitting_side(build(), images_bhw[:2], side)
    test = torch.arange(len(labels)) % 4 == 0
    return Digits(
        build, images_bhw[~test], labels[~test], images_bhw[test], labels[test], fitting, steps, batch, lr,
        weight_decay, seed,
    )  # fmt: skip


@final
@dataclass(frozen=True, eq=False)
class Digits:
    """Handwritten digits (see ``prunekit.task.Task``); built by ``digits``.

    Args:
        network: builds the network.
        images_bhw, labels: the training images, uint8 of 0 to 16 and shape (n, 8, 8); int64 of 0 to 9.
        test_images_bhw, test_labels: those that are only measured.
        side: pixels to which images are enlarged, bilinearly; three equal channels on the scale of [0, 1].
        steps: length of a training in optimiser steps.
        batch: images per step, over all processes.
        rate: base learning rate.
        weight_decay: of every parameter.
        seed: of the data order.
    """

    network: Callable[[], nn.Module]
    images_bhw: Tensor
    labels: Tensor
    test_images_bhw: Tensor
    test_labels: Tensor
    side: int
    steps: int
    batch: int
    rate: float
    weight_decay: float
    seed: int

    def model(self) -> nn.Module:
        """Build a fresh network on the CPU."""
        return self.network()

    def optimizer(self, model: nn.Module) -> Optimizer:
        """Build AdamW over every parameter."""
        return AdamW(model.parameters(), lr=self.rate, weight_decay=self.weight_decay, fused=True)

    def lr(self, clock: int) -> float:
        """Return the factor on the base rate at step ``clock``: a cosine from 1 that never reaches 0."""
        return (1 + math.cos(math.pi * min(clock, self.steps - 1) / self.steps)) / 2

    def __len__(self) -> int:
        return len(self.labels)

    def sample(self, epoch: int, index: int) -> tuple[Tensor, Tensor]:
        """Return a training image and its label; the same in every epoch."""
        return self.images_bhw[index], self.labels[index]

    def batches(self, clock: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images of shape (batch, 8, 8) and their labels from step ``clock`` on."""
        return batches(self, size=self.batch, seed=self.seed, clock=clock)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return the mean cross-entropy, in nats."""
        images_bhw, labels = batch
        like = next(model.parameters())
        logits_bk = model(_network_input(images_bhw.to(like), self.side))
        return functional.cross_entropy(logits_bk.float(), labels.to(like.device))

    def evaluate(self, model: nn.Module) -> list[Measure]:
        """Measure accuracy (1 or 0) and cross-entropy (nats) of this process's test images, one by one."""
        like, measures = next(model.parameters()), []
        for items in torch.tensor(share(range(len(self.test_labels))), dtype=torch.int64).split(CHUNK):
            x_bchw = _network_input(self.test_images_bhw[items].to(like), self.side)
            logits_bk, labels = model(x_bchw).float().cpu(), self.test_labels[items]
            right = logits_bk.argmax(1) == labels
            entropies = functional.cross_entropy(logits_bk, labels, reduction="none")
            for item, hit, entropy in zip(items.tolist(), right.tolist(), entropies.tolist(), strict=True):
                measures.append(self._measure(item, "accuracy", float(hit)))
                measures.append(self._measure(item, "cross_entropy", entropy, higher_is_better=False))
        return measures

    def example(self) -> Tensor:
        """Return the first test image as a network sees it: float, shape (1, 3, side, side)."""
        return _network_input(self.test_images_bhw[:1].float(), self.side)

    def samples(self, model: nn.Module) -> Sequence[Sample]:
        """Return nothing: there are no pictures to be compared."""
        return []

    def fingerprint(self) -> str:
        """Return a text that changes with any pixel, label, or place of an image."""
        digest = hashlib.blake2b(digest_size=8)
        for tensor in (self.images_bhw, self.labels, self.test_images_bhw, self.test_labels):
            digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()

    def _measure(self, item: int, metric: str, value: float, *, higher_is_better: bool = True) -> Measure:
        protocol = f"every fourth image is a test image; 8x8 enlarged to {self.side}x{self.side}"
        return Measure("classify", "digits", f"{item:03d}", metric, value, protocol, higher_is_better)


def _images() -> tuple[Tensor, Tensor]:
    """Return all images, uint8 of shape (1797, 8, 8), and their labels."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as cause:
        raise PluginError('the task digits needs scikit-learn and timm: pip install "prunekit[digits]".') from cause
    pixels, labels = load_digits(return_X_y=True)
    return torch.from_numpy(pixels).to(torch.uint8).view(-1, 8, 8), torch.from_numpy(labels).to(torch.int64)


def _network_input(images_bhw: Tensor, side: int) -> Tensor:
    x_bchw = (images_bhw / BRIGHTEST)[:, None].expand(-1, 3, -1, -1)
    return functional.interpolate(x_bchw, size=(side, side), mode="bilinear", align_corners=False)


@torch.no_grad()
def _fitting_side(model: nn.Module, images_bhw: Tensor, side: int | None) -> int:
    """Return the side of images that the network takes; refuse one that gives anything but ten numbers for each."""
    made_for = getattr(model, "default_cfg", {}).get("input_size")  # timm's models say so
    sides = [side] if side is not None else [SIDE, *([int(made_for[-1])] if made_for else [])]
    model.eval()
    for tried in sides:
        try:
            output = model(_network_input(images_bhw.float(), tried))
        except Exception as cause:  # whatever the network's own code raises
            problem = f"{type(cause).__name__}: {cause}"
            continue
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        if shape == (len(images_bhw), CLASSES):
            return tried
        raise RecipeError(
            f"task.network must give a tensor of shape ({len(images_bhw)}, {CLASSES}) for {len(images_bhw)} images of "
            f"ten classes, and gave {shape}: give it ten outputs, as {{name: timm:test_resnet, num_classes: 10}}."
        )
    raise RecipeError(
        f"task.network does not take images of 3x{sides[-1]}x{sides[-1]} ({problem}): give task.side the pixels that "
        "it takes, or choose a classifier of colour images."
    )
