"""The published folder layout, as items.

``train`` and ``test`` each hold ``denoise/<SET>/*``, ``derain/<SET>/{input/X_rainy.png,target/X_gt.png}`` and
``dehaze/<SET>/{input/X_hazy.jpg,target/X_gt.jpg}``; any task may be absent. The tasks ``jpeg`` and ``web`` take the
clean images of ``denoise``, but are tested on ``test/jpeg/<SET>/*`` and the pairs ``test/web/<SET>/{input,target}``
where these are there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import final

from prunekit.errors import DataError
from prunekit_mir_l.images import is_image, size_of
from prunekit_mir_l.items import DEFAULT_QUALITIES, SIGMAS, TASKS, WEB_TASKS, Item, Items, Qualities, item_tasks

REPEATS = {"denoise": 3, "derain": 120, "dehaze": 1, "jpeg": 3, "web": 6}
"""How often an epoch visits each training item, as published but for the last two; noise so often at each sigma."""

CLEAN = ("denoise", "jpeg")
"""The tasks whose sets are clean images, not pairs."""

MIN_TEST_SIDE = 16
_INPUT_ENDINGS = ("_rainy", "_hazy")
_TARGET_ENDINGS = ("_gt",)


@final
@dataclass(frozen=True)
class Scene:
    """One image of a set, or a pair; None where one half of a pair is missing."""

    input: Path | None
    target: Path | None


@final
@dataclass(frozen=True)
class ImageSet:
    """One set's folder, and the scenes found in it by name."""

    split: str
    task: str
    folder: Path
    scenes: tuple[Scene, ...]

    @property
    def complete(self) -> list[Scene]:
        """The scenes that have all they need."""
        return [s for s in self.scenes if s.target and (s.input or self.task in CLEAN)]


def sets(root: Path, split: str, task: str) -> list[ImageSet]:
    """List the sets of one task, by name; file names are looked at, files are not opened.

    Args:
        root: the data folder.
        split: ``"train"`` or ``"test"``.
        task: among ``items.TASKS``.
    """
    home = root / split / task
    folders = sorted(f for f in home.iterdir() if f.is_dir()) if home.is_dir() else []
    return [ImageSet(split, task, folder, tuple(_scenes(folder, task))) for folder in folders]


def folders(
    root: Path | str,
    tasks: Sequence[str] | None,
    sigmas: Sequence[int] = SIGMAS,
    *,
    qualities: Qualities = DEFAULT_QUALITIES,
    patch: int = 64,
    repeats: Mapping[str, int] | None = None,
) -> Items:
    """Return the items of a data folder, each training item as often as the published balance has it.

    Every file's header is read, to refuse what would end a training later; on the full data that takes some seconds.

    Args:
        root: the data folder, in the published layout.
        tasks: among ``items.TASKS`` and ``items.WEB_TASKS``, each of which must then be there; None takes what there is
            of the former.
        sigmas: noise levels, on the 0..255 scale.
        qualities: of the task ``"jpeg"``.
        patch: side of the training crops; smaller training images are refused.
        repeats: task -> visits of a training item in an epoch, where they differ from ``REPEATS``.

    Raises:
        DataError: a folder, all of a task's images, or half of a pair is missing; the images of a pair differ in
            size; an image is too small, or not an image.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"data folder {root} does not exist: give the folder that holds train/ and test/.")
    wanted = [task for task in tasks or TASKS if tasks or any(s.scenes for s in sets(root, "train", task))]
    if not wanted:
        raise DataError(f"{root} holds no training images: put them in " + " or ".join(map(_place, TASKS)) + ".")
    found = {(task, split): _checked(root, split, task, patch) for task in wanted for split in ("train", "test")}

    often = {**REPEATS, **(repeats or {})}

    def items(split: str) -> Iterator[Item]:
        for task in wanted:
            scenes = found[task, split]
            names = [task] if scenes[0].input else item_tasks(task, sigmas, split=split, qualities=qualities)
            for name in names:
                times = often[task] if split == "train" else 1
                yield from [Item(name, i.dataset, i.target, i.input) for i in scenes] * times

    return Items(list(items("train")), list(items("test")))


def source_of(root: Path, split: str, task: str) -> str:
    """Return the task in whose folder the images of ``task`` lie: ``jpeg`` and ``web`` have test sets at most."""
    borrows = task in WEB_TASKS and not (split == "test" and any(s.scenes for s in sets(root, split, task)))
    return "denoise" if borrows else task


def _checked(root: Path, split: str, task: str, patch: int) -> list[Item]:
    """Return the items of one task and split, each found whole and large enough."""
    there = sets(root, split, source_of(root, split, task))
    scenes = list(chain.from_iterable(s.complete for s in there))
    broken = next((s for one in there for s in one.scenes if s not in one.complete), None)
    if broken:
        raise DataError(f"{half_of_a_pair(broken)} {_HELP}")
    if not scenes:
        place = _place(source_of(root, split, task), split)
        raise DataError(f"{root} holds no {split} images of {task}: put them in {place}.")
    for scene in scenes:
        if problem := problem_of(scene, patch if split == "train" else MIN_TEST_SIDE):
            raise DataError(f"{problem} {_HELP}")
    return [Item(task, one.folder.name, s.target, s.input) for one in there for s in one.complete if s.target]


_HELP = "Mend or remove it; `prunekit mir_l data check DIR` lists every problem."


def half_of_a_pair(scene: Scene) -> str:
    """Say which half of an incomplete pair is missing."""
    path, missing = (scene.target, "input") if scene.input is None else (scene.input, "target")
    return f"{path}: the pair has no {missing}."


def problem_of(scene: Scene, side: int) -> str | None:
    """Say what is wrong with the sizes of a complete scene, by its files' headers; None where nothing is.

    Args:
        scene: an image, or a pair.
        side: pixels that both height and width must have at least.

    Raises:
        DataError: a file is not an image.
    """
    sizes = {path: size_of(path) for path in (scene.target, scene.input) if path}
    for path, (height, width) in sizes.items():
        if min(height, width) < side:
            return f"{path}: {width}x{height} pixels, smaller than the {side}x{side} needed."
    if len(set(sizes.values())) > 1:
        (_, target), (path, given) = sizes.items()
        return f"{path}: {given[1]}x{given[0]} pixels, but its target has {target[1]}x{target[0]}."
    return None


def _scenes(folder: Path, task: str) -> Iterator[Scene]:
    if task in CLEAN:
        yield from (Scene(None, path) for path in _images(folder))
        return
    inputs = {_stem(path, _INPUT_ENDINGS): path for path in _images(folder / "input")}
    targets = {_stem(path, _TARGET_ENDINGS): path for path in _images(folder / "target")}
    for stem in sorted(inputs | targets):
        yield Scene(inputs.get(stem), targets.get(stem))


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if is_image(path)) if folder.is_dir() else []


def stem_of(path: Path) -> str:
    """Return what an image and its target have in common: ``X`` of ``X_rainy.png`` and ``X_gt.jpg``."""
    return _stem(path, (*_INPUT_ENDINGS, *_TARGET_ENDINGS))


def _stem(path: Path, endings: Sequence[str]) -> str:
    stem = path.stem
    return next((stem.removesuffix(ending) for ending in endings if stem.endswith(ending)), stem)


def _place(task: str, split: str = "train") -> str:
    return f"{split}/{task}/<SET>/" + ("" if task in CLEAN else "{input,target}/")
