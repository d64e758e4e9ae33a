"""What a data folder holds beside what the full one does, and what is wrong in it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import final

from prunekit.errors import DataError
from prunekit_mir_l.folders import CLEAN, MIN_TEST_SIDE, ImageSet, Scene, half_of_a_pair, problem_of, sets
from prunekit_mir_l.images import read_rgb
from prunekit_mir_l.items import TASKS, WEB_TASKS
from prunekit_mir_l.manifest import differing

FULL = {
    ("train", "denoise", "WED"): 4744,
    ("train", "denoise", "BSD400"): 400,
    ("train", "derain", "Rain100L"): 200,
    ("train", "dehaze", "OTS"): 72135,
    ("test", "denoise", "BSD68"): 68,
    ("test", "denoise", "Urban100"): 100,
    ("test", "derain", "Rain100L"): 100,
    ("test", "dehaze", "SOTS"): 500,
}
"""Images, or pairs, in each set that the publication trains or tests on."""


@final
@dataclass(frozen=True)
class SetReport:
    """One set: how many images or pairs are there and whole, how many the full set holds, and every problem."""

    split: str
    task: str
    name: str
    count: int
    full: int | None
    problems: tuple[str, ...]


@final
@dataclass(frozen=True)
class Report:
    """What a data folder holds; sets of the publication that are absent are listed with a count of 0."""

    root: Path
    sets: tuple[SetReport, ...]

    @property
    def problems(self) -> int:
        """How many problems there are in all; a short or absent set is none."""
        return sum(len(one.problems) for one in self.sets)


def check(root: Path | str, *, patch: int = 64, hashes: bool = False) -> Report:
    """Decode every image of a data folder and report on each set; nothing in it is an error.

    Args:
        root: the data folder, in the published layout.
        patch: side of the training crops, which training images must have at least.
        hashes: compare every file with its set's ``MANIFEST.json``, too.

    Raises:
        DataError: the folder does not exist.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"data folder {root} does not exist: give the folder that holds train/ and test/.")
    found = [one for split in ("train", "test") for task in (*TASKS, *WEB_TASKS) for one in sets(root, split, task)]
    with ThreadPoolExecutor() as pool:  # decoding leaves Python's lock
        reports = [_report(one, patch, pool, hashes) for one in found]
    named = {(r.split, r.task, r.name) for r in reports}
    absent = [SetReport(*key, 0, full, ()) for key, full in FULL.items() if key not in named]
    return Report(root, tuple(sorted([*reports, *absent], key=_place)))


def still_missing(root: Path) -> list[str]:
    """Return a line for each set that the publication has and the folder does not have in full; nothing is opened."""
    there = {
        (one.split, one.task, one.folder.name): len(one.complete)
        for split, task in dict.fromkeys(key[:2] for key in FULL)
        for one in sets(root, split, task)
    }
    return [
        f"{split}/{task} {name}: {there.get((split, task, name), 0)} of {full}"
        for (split, task, name), full in FULL.items()
        if there.get((split, task, name), 0) < full
    ]


def render(report: Report) -> list[str]:
    """Return a report as lines of text, without colours or line ends."""
    lines = [f"{report.root}: {report.problems} problem{'' if report.problems == 1 else 's'}"]
    for one in report.sets:
        unit = "image" if one.task in CLEAN else "pair"
        full = f" of {one.full}" if one.full is not None else ""
        plural = "" if (one.full or one.count) == 1 else "s"
        lines.append(f"{one.split + '/' + one.task:14}  {one.name:14}  {one.count}{full} {unit}{plural}")
        lines += [f"    {problem}" for problem in one.problems]
    return lines


def _report(one: ImageSet, patch: int, pool: ThreadPoolExecutor, hashes: bool) -> SetReport:
    side = patch if one.split == "train" else MIN_TEST_SIDE
    halves = [half_of_a_pair(scene) for scene in one.scenes if scene not in one.complete]
    problems = list(pool.map(lambda scene: list(_problems(scene, side)), one.complete))
    full = FULL.get((one.split, one.task, one.folder.name))
    told = (*halves, *(problem for found in problems for problem in found), *(differing(one.folder) if hashes else ()))
    return SetReport(one.split, one.task, one.folder.name, sum(not found for found in problems), full, told)


def _problems(scene: Scene, side: int) -> Iterator[str]:
    """Yield what is wrong with a complete scene: unreadable files first, and sizes where all can be read."""
    unreadable = [problem for path in (scene.input, scene.target) if path for problem in _unreadable(path)]
    yield from unreadable
    if not unreadable and (problem := problem_of(scene, side)):
        yield problem


def _unreadable(path: Path) -> Iterator[str]:
    try:
        read_rgb(path)
    except DataError as error:
        yield str(error)


def _place(one: SetReport) -> tuple[bool, int, str]:
    return one.split == "test", (*TASKS, *WEB_TASKS).index(one.task), one.name
