"""The MIR-L task: one network that removes noise, rain and haze, on the embedded photographs or a data folder.

Axes: b batch, c channels, h height, w width.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import AdamW, Optimizer

from prunekit.data import batches, epoch_steps, share
from prunekit.errors import RecipeError, nearest
from prunekit.imaging import ImageCall, image_call
from prunekit.network import Network, bind_network
from prunekit.recipe import Bound
from prunekit.task import Measure, Sample
from prunekit_mir_l import metrics
from prunekit_mir_l.dataset import AUGMENT, Crops, as_tensor, evaluation_pair
from prunekit_mir_l.embedded import embedded
from prunekit_mir_l.folders import MIN_TEST_SIDE, folders
from prunekit_mir_l.images import ImageCache, Pixels
from prunekit_mir_l.items import SIGMAS, TASKS, Item

SAMPLE_SIDE = 192
EXAMPLE_SIDE = 128
CHANNELS = {"rgb": 3, "grey": 1}


def mir_l(
    *,
    data: str = "embedded",
    network: Network = "promptir_tiny",
    color: str | None = None,
    tasks: Sequence[str] | None = None,
    sigmas: Sequence[int] = SIGMAS,
    repeats: Mapping[str, int] | None = None,
    patch: int = 64,
    batch: int = 8,
    steps: int | None = None,
    epochs: int | None = None,
    warmup: int = 0,
    lr: float = 2e-4,
    weight_decay: float = 0.01,
    lr_per: str = "step",
    augment: str = "dihedral",
    test_crop: int | None = None,
    workers: int = 0,
    cache_mib: int = 512,
    seed: int = 0,
) -> MirL:
    """Build the task; lists the data, and reads the headers of a data folder's images.

    Args:
        data: ``"embedded"``, or a folder in the published layout.
        network: name of a restoration network that keeps the size of its images, and its options (see
            ``prunekit.network.bind_network``), or a factory. How it wants to be called is found by trying.
        color: ``"rgb"`` or ``"grey"`` (BT.601 luma, as grey denoisers are trained and tested); None takes RGB where the
            network does. Noise is added to what is seen, rain and haze are made in colour.
        tasks: among ``"denoise"``, ``"derain"``, ``"dehaze"``; None takes all that the data has.
        sigmas: noise levels of ``"denoise"``, on the 0..255 scale.
        repeats: task -> visits of a training item in an epoch (at each sigma, for noise), where they are to differ from
            the embedded data's 1, 4, 2 or the published 3, 120, 1 for denoise, derain, dehaze.
        patch: side of the training crops in pixels, a multiple of what the network halves (8 for PromptIR).
        batch: samples per optimiser step, over all processes.
        steps: length of a training in optimiser steps; or
        epochs: its length in passes over the training set.
        warmup: units (see ``lr_per``) in which the rate rises from 0; 0 or 1 for none.
        lr: the base rate of AdamW.
        weight_decay: of every parameter.
        lr_per: ``"step"`` or ``"epoch"``: the unit in which the rate changes.
        augment: ``"dihedral"`` turns each crop by any symmetry of the square; ``"published"`` by any but the identity.
        test_crop: pixels that the sides of a test image are cropped to at most, a multiple of 16; None as published.
        workers: loader processes.
        cache_mib: MiB of decoded training images held in each loader process.
        seed: of data order, crops and degradations. Test images are degraded alike whatever the seed.

    Raises:
        RecipeError: an option has no meaning, or the network makes no images of the size and colour that it is given.
        DataError: the data folder cannot be used.
    """
    for name in (*(tasks or ()), *(repeats or ())):
        _known("task", name, TASKS)
    _need(all(often >= 1 for often in (repeats or {}).values()), f"repeats are {repeats}: each must be at least 1.")
    _need(
        workers >= 0 and lr > 0 and weight_decay >= 0,
        "workers and weight_decay must not be negative, lr must be positive.",
    )
    _known("augment", augment, AUGMENT)
    _known("lr_per", lr_per, ("step", "epoch"))
    _known("color", color or "rgb", CHANNELS)
    _need(
        test_crop is None or (test_crop > 0 and test_crop % MIN_TEST_SIDE == 0),
        f"test_crop is {test_crop}: give a positive multiple of {MIN_TEST_SIDE}, or null.",
    )
    _need((steps is None) != (epochs is None), "give either steps or epochs, and leave the other out (or null).")
    _need(batch > 0 and (steps or epochs or 0) > 0, "batch, and steps or epochs, must be at least 1.")
    _need(all(s == int(s) > 0 for s in sigmas), f"sigmas are {list(sigmas)}: each must be a whole number above 0.")
    if data == "embedded":
        items = embedded(tasks or TASKS, sigmas, repeats=repeats)
    else:
        items = folders(data, tasks, sigmas, patch=patch, repeats=repeats)
    _need(bool(items.train), "there is nothing to train on: name a task, and sigmas for denoise.")
    unit = 1 if lr_per == "step" else epoch_steps(len(items.train), batch)
    length = steps or (epochs or 0) * epoch_steps(len(items.train), batch)
    _need(0 <= warmup < math.ceil(length / unit), f"warmup is {warmup}: it must end before training does.")
    build = bind_network(network)
    call = _call(build, CHANNELS[color] if color else None)
    _need(
        patch > 0 and patch % call.multiple == 0,
        f"patch is {patch}: it must be a positive multiple of {call.multiple} for this network.",
    )
    crops = Crops(items.train, patch, seed, augment, ImageCache(cache_mib * 2**20), in_grey=call.channels == 1)
    return MirL(
        build, call, crops, tuple(items.test), length, unit, warmup, lr, weight_decay, batch, workers, seed, test_crop
    )


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
    """The MIR-L task (see ``prunekit.task.Task``); built by ``mir_l``.

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
        """Measure PSNR and SSIM of this process's test images, beside those of the untreated inputs."""
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
        protocol = metrics.GREY_PROTOCOL if self.crops.in_grey else metrics.PROTOCOL
        protocol += f"; centre of at most {self.test_crop} px" if self.test_crop else ""
        restored = self._restored(model, given)
        for name, metric in (("psnr", metrics.psnr), ("ssim", metrics.ssim)):
            value, baseline = (metric(image, metrics.floats(target)) for image in (restored, metrics.floats(given)))
            yield Measure(item.task, item.dataset, item.name, name, value, protocol, baseline=baseline)

    def _sample(self, model: nn.Module, item: Item) -> Sample:
        given, target = evaluation_pair(item, limit=SAMPLE_SIDE, in_grey=self.crops.in_grey)
        output = (self._restored(model, given).clip(0, 1) * 255).round().astype("uint8")
        images = {"input": given, "output": output, "target": target}
        in_rgb = {name: np.repeat(pixels, 3 // pixels.shape[2], axis=2) for name, pixels in images.items()}
        return Sample(item.task, item.name, {name: torch.from_numpy(pixels) for name, pixels in in_rgb.items()})

    @torch.no_grad()
    def _restored(self, model: nn.Module, given: Pixels) -> metrics.Floats:
        """Return a network's output for one image: float32, shape (height, width, channels), not clipped."""
        output_bchw = self.call(model, _batch(given))
        output: metrics.Floats = output_bchw[0].permute(1, 2, 0).float().cpu().numpy()
        return output


def _batch(pixels: Pixels) -> Tensor:
    return as_tensor(pixels)[None].float() / 255


def _call(build: Callable[[], nn.Module], channels: int | None) -> ImageCall:
    """Find out how the network wants to be called; raises RecipeError, naming it, where it restores no images."""
    with torch.random.fork_rng(devices=[]):
        model = build()
    try:
        return image_call(model, channels=channels)
    except RecipeError as error:
        name = build.tree["name"] if isinstance(build, Bound) else type(model).__name__
        raise RecipeError(f"task.network {name!r} cannot be trained to restore images: {error}") from error


def _known(option: str, name: str, known: Iterable[str]) -> None:
    _need(name in known, f"{option} {name!r} is unknown: {nearest(name, known)}")


def _need(met: bool, otherwise: str) -> None:
    if not met:
        raise RecipeError(otherwise)
