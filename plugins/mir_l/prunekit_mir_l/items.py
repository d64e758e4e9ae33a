"""What a training or test set is made of: names of tasks, and where each item's pixels come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np

from prunekit_mir_l import degrade
from prunekit_mir_l.degrade import Window
from prunekit_mir_l.images import Pixels

TASKS = ("denoise", "derain", "dehaze")
SIGMAS = (15, 25, 50)


@final
@dataclass(frozen=True)
class Item:
    """One image of one task.

    Args:
        task: ``"derain"``, ``"dehaze"``, or ``"denoise_25"`` with the noise's sigma.
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
    def is_noise(self) -> bool:
        """Whether noise is what is to be removed."""
        return self.task.startswith("denoise")

    def degraded(self, clean: Pixels, rng: np.random.Generator, window: Window) -> Pixels:
        """Make the input of an item that has no degraded image, from the part of its target inside ``window``."""
        if self.task == "derain":
            return degrade.rain(clean, rng)
        if self.task == "dehaze":
            return degrade.haze(clean, rng, window=window)
        return degrade.noise(clean, sigma_of(self.task), rng)


@final
@dataclass(frozen=True)
class Items:
    """The items to train on, each as often as it is visited in an epoch, and those to test on."""

    train: Sequence[Item]
    test: Sequence[Item]


def item_tasks(task: str, sigmas: Sequence[int]) -> list[str]:
    """Return what a task is called in items: one name for each sigma of ``"denoise"``, else the task's own.

    Example:
        >>> item_tasks("denoise", [15, 50]), item_tasks("derain", [15, 50])
        (['denoise_15', 'denoise_50'], ['derain'])
    """
    return [f"denoise_{sigma}" for sigma in sigmas] if task == "denoise" else [task]


def sigma_of(task: str) -> int:
    """Return the noise's sigma in a name such as ``"denoise_25"``."""
    return int(task.removeprefix("denoise_"))
