"""What a training or test set is made of: names of tasks, and where each item's pixels come from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np

from prunekit_mir_l import degrade, web, web_v1
from prunekit_mir_l.degrade import Window
from prunekit_mir_l.images import Pixels

TASKS = ("denoise", "derain", "dehaze")
WEB_TASKS = ("jpeg", "web")
"""Beyond the publication, and so on request alone."""
SIGMAS = (15, 25, 50)
EVEN = "even"
"""In place of repeats: as many as visit all tasks about equally often."""


@final
@dataclass(frozen=True)
class Qualities:
    """Which JPEG files the task ``"jpeg"`` is about: tested at each of some qualities, trained on a range."""

    test: Sequence[int] = (10, 20, 30, 40)
    train: Sequence[int] = (5, 95)


DEFAULT_QUALITIES = Qualities()


@final
@dataclass(frozen=True)
class Item:
    """One image of one task.

    Args:
        task: ``"derain"``, ``"dehaze"``, ``"denoise_25"`` with the noise's sigma, ``"jpeg_10"`` with a quality or
            ``"jpeg_5-95"`` with a range, ``"web"`` with chains drawn anew or ``"web_NAME"``, one of ``web_v1.NAMES``.
        dataset: name of the set.
        target: the clean image.
        input: the degraded image; None where it is made from the clean one.
    """

    task: str
    dataset: str
    target: Path
    input: Path | None = None

    @property
    def name(self) -> str:
        """The file's name, that of the degraded image where there is one."""
        return (self.input or self.target).name

    @property
    def falls_on_what_is_seen(self) -> bool:
        """Whether a grey network's input is made from the grey image: noise, and one JPEG file; not the rest."""
        return self.task.startswith(("denoise", "jpeg"))

    @property
    def is_file(self) -> bool:
        """Whether pixels pass through files, so that they depend on those around."""
        return self.task.startswith(WEB_TASKS)

    def degraded(self, clean: Pixels, rng: np.random.Generator, window: Window) -> Pixels:
        """Make the input of an item that has no degraded image, from the part of its target inside ``window``."""
        kind, _, how = self.task.partition("_")
        if kind == "derain":
            return degrade.rain(clean, rng)
        if kind == "dehaze":
            return degrade.haze(clean, rng, window=window)
        if kind == "denoise":
            return degrade.noise(clean, int(how), rng)
        if kind == "jpeg" and "-" in how:
            lowest, highest = map(int, how.split("-"))
            return web.apply(web.draw_jpeg(rng, lowest, highest), clean)
        if kind == "jpeg":
            return web.apply((web.Compress("jpeg", int(how)),), clean)
        return web.apply(web_v1.chain(how, self.target.stem) if how else web.draw(rng), clean)


@final
@dataclass(frozen=True)
class Items:
    """The items to train on, each as often as it is visited in an epoch, and those to test on."""

    train: Sequence[Item]
    test: Sequence[Item]


def evened(items: Items) -> Items:
    """Return items of which every task is visited about as often as the largest: whole repeats of each, at least 1.

    Noise at all its sigmas is one task.
    """
    tasks = [item.task.split("_")[0] for item in items.train]
    count = Counter(tasks)
    often = {task: max(1, round(max(count.values()) / n)) for task, n in count.items()}
    return Items([i for item, task in zip(items.train, tasks, strict=True) for i in [item] * often[task]], items.test)


def item_tasks(
    task: str, sigmas: Sequence[int], *, split: str = "test", qualities: Qualities = DEFAULT_QUALITIES
) -> list[str]:
    """Return what a task is called in items that are made from clean images: one name for each strength tested.

    Example:
        >>> item_tasks("denoise", [15, 50]), item_tasks("derain", [15, 50])
        (['denoise_15', 'denoise_50'], ['derain'])
        >>> item_tasks("jpeg", [], qualities=Qualities([10, 40])), item_tasks("jpeg", [], split="train")
        (['jpeg_10', 'jpeg_40'], ['jpeg_5-95'])
    """
    if task == "denoise":
        return [f"denoise_{sigma}" for sigma in sigmas]
    if task == "jpeg":
        return [f"jpeg_{q}" for q in qualities.test] if split == "test" else ["jpeg_{}-{}".format(*qualities.train)]
    return [f"web_{name}" for name in web_v1.NAMES] if (task, split) == ("web", "test") else [task]
