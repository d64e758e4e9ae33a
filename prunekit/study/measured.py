"""All that a study's reports are made from, and its metrics."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

from prunekit.report.results import StageResult
from prunekit.report.table import Group, digits, labels, metrics
from prunekit.study.arms import ARMS, DENSE
from prunekit.study.folder import Asked
from prunekit.study.results import ArmResult, Decision, Gap, decide, deciding, gaps
from prunekit.study.single import Each


@final
@dataclass(frozen=True)
class Results:
    """All that a report is made from.

    Args:
        folder: the study's.
        arms: as `prunekit.study.results.read_arms` returns them.
        failed: (arm, seed) -> why.
        asked: what the study was to look at.
        command: makes the same study again.
    """

    folder: Path
    arms: Mapping[str, ArmResult]
    failed: Mapping[tuple[str, int], str]
    asked: Asked
    command: str

    @property
    def each(self) -> Each | None:
        """The tasks that were looked at alone, if any."""
        return self.asked.each

    def decisions(self, metric: Metric) -> list[Decision]:
        """Say of every ticket of all tasks whether it is a winning one."""
        asked = self.asked
        groups = list(metric.named)
        return decide(self.main, groups, metric.name, asked=asked.arms, higher=metric.higher, margin=asked.margin)

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


def against_controls(results: Results, metric: Metric) -> list[Gap]:
    """Return how every ticket of all tasks differs, at its last density, from the dense arm and each control."""
    found = deciding(results.main, list(metric.named), metric.name)
    return [gap for gaps_ in found.values() for gap in gaps_]
