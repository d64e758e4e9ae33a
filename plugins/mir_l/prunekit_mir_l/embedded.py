"""The default data: photographs inside packages that are installed anyway, degraded synthetically.

Nothing is downloaded. Nine colour pictures (one of them a micrograph, one of a retina) are few, and the rain and haze
are made up: this data shows that a run works and how its rounds compare, never how well a network restores the world.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from prunekit.errors import DataError
from prunekit_mir_l.items import DEFAULT_QUALITIES, Item, Items, Qualities, item_tasks

DATASET = "embedded (synthetic degradations)"

# Split by image; both views of the stereo pair are on one side.
TRAIN = (
    "skimage/data/astronaut.png",
    "skimage/data/ihc.png",
    "skimage/data/motorcycle_left.png",
    "skimage/data/motorcycle_right.png",
    "skimage/data/retina.jpg",
    "skimage/data/rocket.jpg",
)
TEST = (
    "skimage/data/chelsea.png",
    "skimage/data/coffee.png",
    "matplotlib/mpl-data/sample_data/grace_hopper.jpg",
)

REPEATS = {"denoise": 1, "derain": 4, "dehaze": 2, "jpeg": 4, "web": 9}
"""How often an epoch visits each training photograph, noise so often at each sigma; rain takes longest to learn."""


def embedded(
    tasks: Sequence[str],
    sigmas: Sequence[int],
    *,
    qualities: Qualities = DEFAULT_QUALITIES,
    repeats: Mapping[str, int] | None = None,
) -> Items:
    """Return the embedded photographs as items of each task, a training item as often as ``REPEATS`` says.

    Args:
        tasks: among ``items.TASKS`` and ``items.WEB_TASKS``.
        sigmas: noise levels of the task ``"denoise"``, on the 0..255 scale.
        qualities: of the task ``"jpeg"``.
        repeats: task -> visits of a training item in an epoch, where they differ from ``REPEATS``.

    Raises:
        DataError: an installed package lacks a photograph.
    """

    often = {**REPEATS, **(repeats or {})}

    def items(split: str, photographs: Sequence[str], task: str) -> list[Item]:
        names = item_tasks(task, sigmas, split=split, qualities=qualities)
        return [Item(name, DATASET, _find(path)) for name in names for path in photographs]

    train = [item for task in tasks for item in items("train", TRAIN, task) * often[task]]
    return Items(train, [item for task in tasks for item in items("test", TEST, task)])


def _find(photograph: str) -> Path:
    package, _, inside = photograph.partition("/")
    spec = find_spec(package)  # finds the folder without importing the package
    folders = spec.submodule_search_locations if spec else None
    for folder in folders or ():
        if (path := Path(folder, inside)).is_file():
            return path
    raise DataError(
        f"the installed {package} has no {inside}, which the embedded data is made of: "
        f"install another version of it, or train on your own images with task.data=DIR."
    )
