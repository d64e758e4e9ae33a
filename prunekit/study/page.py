"""A study's report: Markdown, CSV and pictures, from its directory alone."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import final

from prunekit.files import write_text
from prunekit.report.markdown import layout
from prunekit.report.results import StageResult
from prunekit.report.table import Group, digits, labels, metrics
from prunekit.study import between, plots, tables
from prunekit.study.arms import ARMS, DENSE
from prunekit.study.clock import seconds_of
from prunekit.study.overlap import overlaps
from prunekit.study.results import ArmResult, Gap, decide, gaps
from prunekit.study.sheets import gaps_csv, overlaps_csv
from prunekit.study.single import ALL, RANDOM, Each

HOW = (
    "Differences are paired: the same items, the same seeds, the dense network of the same seed. ± is half a 95 % "
    "interval over seeds and items, rather too wide than too narrow; no difference smaller than it could be told from "
    "none. 'Is it a winning ticket?' is yes where it is not worse than dense by more than the margin and better than "
    "every control, both with the whole interval; no where one of these is refuted; undecided otherwise."
)
TRANSFER = (
    "Each ticket, taken from the network that is named left, is trained from the initialisation on one task alone and "
    "measured on it. Differences to that task's own dense network, positive where the ticket is better."
)
INTERFERENCE = (
    "The network of all tasks less the network of that one task at the same density and after as many steps, of which "
    "the former shares its own among the tasks. Positive: the other tasks help; negative: they are in its way."
)
OVERLAP = (
    "Weights that both tickets keep, as a share of those that either keeps; mean over the seeds (least to most). By "
    "chance: the same of tickets that keep as many weights of each tensor in random places. Tickets of a seed start "
    "from the same initialisation, so they have more in common than chance before any training. The tensors named are "
    "among those with a hundredth of the kept weights at least."
)
TENSORS = "Tensor by tensor, all seeds together, larger where more is kept; `overlap.csv` names them."


@final
@dataclass(frozen=True)
class Results:
    """All that a report is made from.

    Args:
        folder: the study's.
        arms: as `prunekit.study.results.read_arms` returns them.
        failed: (arm, seed) -> why.
        margin: in the unit of the first metric.
        command: makes the same study again.
        each: the tasks that were looked at alone, if any.
    """

    folder: Path
    arms: Mapping[str, ArmResult]
    failed: Mapping[tuple[str, int], str]
    margin: float
    command: str
    each: Each | None

    @property
    def main(self) -> dict[str, ArmResult]:
        """The arms of all tasks."""
        return {name: arm for name, arm in self.arms.items() if name in ARMS}

    def stages(self) -> list[StageResult]:
        """Return every stage of the arms of all tasks."""
        return [stage for arm in self.main.values() for stages in arm.stages.values() for stage in stages]


@final
@dataclass(frozen=True)
class Metric:
    """One metric: the tasks that have it, whether higher is better, decimals, and the dense networks' means."""

    name: str
    named: Mapping[Group, str]
    higher: bool
    places: int
    dense: Mapping[Group, float]


def write_study_report(results: Results) -> list[Path]:
    """Write ``report.md``, ``study.csv`` and pictures, and ``overlap.csv`` where single tasks were trained.

    Returns:
        The files, the page first.

    Raises:
        PruneKitError: matplotlib or scipy is missing.
    """
    folder = results.folder
    parts = [f"# Study {folder.resolve().name}", f"```\n{results.command}\n```", HOW]
    if results.failed:
        lines = [f"* {arm} of seed {seed}: {why}" for (arm, seed), why in sorted(results.failed.items())]
        parts += ["## Failed", "\n".join(lines)]
    parts += ["## What each arm costs", layout(tables.costs(results.arms)), _clock(results)]
    found: list[Gap] = []
    pictures: list[Path] = []
    for number, metric in enumerate(measured(results)):
        compared = against_dense(results, metric)
        found += [*compared, *_alone(results, metric)]
        if not number:
            parts += _verdicts(results, metric)
            if compared:
                drawing = partial(plots.quality, gaps=compared, named=metric.named, metric=metric.name)
                pictures.append(plots.draw(folder / "study.png", drawing))
                parts.append("![study.png](study.png)\n\nThe first metric against the share of all parameters left.")
            if results.each is not None:
                parts += _between(results, results.each, metric, pictures)
        table = tables.against_dense(metric.dense, compared, metric.named, metric.places)
        parts += [f"## Against the dense network: {metric.name}", layout(table)]
    sheets = {"report.md": "\n\n".join(parts) + "\n", "study.csv": gaps_csv(found)}
    if results.each is not None:
        sheets["overlap.csv"] = overlaps_csv(overlaps(results.each, results.arms))
    for name, text in sheets.items():
        write_text(folder / name, text)
    return [*(folder / name for name in sheets), *pictures]


def measured(results: Results) -> list[Metric]:
    """Return the metrics of a study, the one that decides first; none without a dense network."""
    if DENSE not in results.arms:
        return []
    dense, stages = results.arms[DENSE], results.stages()
    found = []
    for name in metrics(stages):
        named = labels(stages, name)
        means = {group: statistics.fmean(dense.values(-1, group, name).values()) for group in named}
        higher = next(m.higher_is_better for stage in stages for m in stage.measures if m.metric == name)
        found.append(Metric(name, named, higher, digits(means.values()), means))
    return found


def _clock(results: Results) -> str:
    runs = sum(arm.seconds for arm in results.arms.values())
    return (
        f"By the clock the study has taken {tables.duration(seconds_of(results.folder))} so far, all resumptions "
        f"together; the stages of its runs took {tables.duration(runs)} in sum."
    )


def _verdicts(results: Results, metric: Metric) -> list[str]:
    decisions = decide(results.main, list(metric.named), metric.name, higher=metric.higher, margin=results.margin)
    title = f"## Is it a winning ticket? {metric.name}, margin {results.margin:g}"
    return [title, layout(tables.verdicts(decisions, metric.named, metric.places))]


def against_dense(results: Results, metric: Metric) -> list[Gap]:
    """Return how every arm of all tasks differs from the dense network at each of its densities."""
    dense = results.arms[DENSE]
    others = [arm for arm in results.main.values() if arm is not dense]
    return [
        gap
        for arm in others
        for point in range(arm.points)
        for gap in gaps(arm, point, dense, -1, metric.named, metric.name)
    ]


def _alone(results: Results, metric: Metric) -> list[Gap]:
    """Return all gaps of and to the arms of single tasks, each once."""
    if results.each is None:
        return []
    moved = between.transfers(results.each, results.arms, metric.name)
    mixed = between.interference(results.each, results.arms, metric.name)
    all_gaps = between.descents(results.each, results.arms, metric.name)
    all_gaps += [gap for found in (*moved.values(), *mixed) for gap in found]
    return list(dict.fromkeys(all_gaps))


def _between(results: Results, each: Each, metric: Metric, pictures: list[Path]) -> list[str]:
    """Return the sections on the tasks alone and together, and draw their pictures."""
    owned = between.owners(each, results.arms, metric.name)
    named = {group: label for group, label in metric.named.items() if group in owned}
    if not named:
        return ["## Between tasks", "No task is measured by one network of a single task alone: nothing to compare."]
    sources = {value: value for value in each.values} | {ALL: "all tasks", RANDOM: "none: random places"}
    moved = between.transfers(each, results.arms, metric.name)
    table = tables.transferred(sources, moved, named, metric.higher, metric.places)
    parts = [f"## Tickets on other tasks: {metric.name}", TRANSFER, layout(table)]
    if mixed := between.interference(each, results.arms, metric.name):
        table = tables.interfering(mixed, named, metric.higher, metric.places)
        drawing = partial(plots.interference, found=mixed, named=named, metric=metric.name, higher=metric.higher)
        pictures.append(plots.draw(results.folder / "interference.png", drawing))
        parts += [f"## One task beside all: {metric.name}", INTERFERENCE, layout(table)]
        parts.append("![interference.png](interference.png)")
    if shared := overlaps(each, results.arms):
        pictures.append(plots.draw(results.folder / "overlap.png", partial(plots.overlap, found=shared)))
        parts += ["## What tickets have in common", OVERLAP, layout(tables.overlapping(shared))]
        parts.append(f"![overlap.png](overlap.png)\n\n{TENSORS}")
    return parts
