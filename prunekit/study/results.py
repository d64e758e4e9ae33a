"""A study's directory as plain data: every arm's stages over the seeds, and how they compare with the dense network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from prunekit.report.results import StageResult, read_plan, read_results, unfinished
from prunekit.report.table import Group
from prunekit.study.arms import ARMS, CONTROLS, DENSE, is_dense
from prunekit.study.stats import Difference, Verdict, better, not_worse, paired, together

Values = dict[tuple[int, str], float]


@final
@dataclass(frozen=True)
class ArmResult:
    """The finished runs of one arm.

    Args:
        stages: seed -> its finished stages, in order, the dense one left out.
        steps_after: optimiser steps after the last cut.
        steps: of all its stages, the shared dense one among them.
        seconds: wall time of its own stages, over all seeds; the dense one's is the dense arm's.
    """

    name: str
    stages: Mapping[int, Sequence[StageResult]]
    steps_after: int
    steps: int
    seconds: float

    @property
    def points(self) -> int:
        """Number of densities that it was measured at."""
        return min(len(stages) for stages in self.stages.values())

    def density_of_all(self, point: int) -> float:
        """Share of all parameters that is left, in [0, 1], mean over the seeds."""
        found = [stages[point].density_of_all for stages in self.stages.values()]
        return sum(found) / len(found)

    def groups(self, metric: str) -> list[Group]:
        """Return the (task, data set) pairs that it is measured on."""
        stages = next(iter(self.stages.values()))
        return list(dict.fromkeys((m.task, m.dataset) for m in stages[-1].measures if m.metric == metric))

    def values(self, point: int, group: Group, metric: str) -> Values:
        """Return (seed, item) -> value."""
        return {
            (seed, m.item): m.value
            for seed, stages in self.stages.items()
            for m in stages[point].measures
            if m.metric == metric and (m.task, m.dataset) == group
        }


def read_arms(folder: Path, arms: Sequence[str], seeds: Sequence[int]) -> dict[str, ArmResult]:
    """Read the arms of which some seed has finished; errors as `prunekit.report.results.read_results`."""
    found = {}
    for arm in arms:
        runs = {seed: folder / f"seed-{seed}" / arm for seed in seeds}
        runs = {seed: run for seed, run in runs.items() if (run / "plan.json").is_file() and not unfinished(run)}
        if runs:
            found[arm] = _read_arm(arm, runs)
    return found


def _read_arm(arm: str, runs: Mapping[int, Path]) -> ArmResult:
    whole = {seed: read_results(run) for seed, run in runs.items()}
    own = {seed: stages if is_dense(arm) else stages[1:] for seed, stages in whole.items()}
    steps = list(read_plan(next(iter(runs.values()))).values())
    seconds = sum(stage.seconds for stages in own.values() for stage in stages)
    return ArmResult(arm, own, steps[-1], sum(steps), seconds)


@final
@dataclass(frozen=True)
class Gap:
    """How an arm at one of its densities (share of all parameters) differs from another arm on one task."""

    arm: str
    density: float
    against: str
    group: Group
    metric: str
    difference: Difference


def gaps(arm: ArmResult, point: int, other: ArmResult, at: int, groups: Iterable[Group], metric: str) -> list[Gap]:
    """Return how an arm at one of its densities differs from another at one of its, task by task.

    Args:
        arm, other: their seeds and items are paired; nothing is returned where they share no seed.
        point, at: which of their densities.
        groups: (task, data set) pairs; those that not both measure are left out.
        metric: its name.
    """
    if not set(arm.stages) & set(other.stages):
        return []
    pairs = [(group, arm.values(point, group, metric), other.values(at, group, metric)) for group in groups]
    density = arm.density_of_all(point)
    return [
        Gap(arm.name, density, other.name, group, metric, paired(mine, others))
        for group, mine, others in pairs
        if mine and others
    ]


@final
@dataclass(frozen=True)
class Decision:
    """Whether an arm's last ticket is a winning one on one task.

    Args:
        against: arm -> difference in the metric, positive where the ticket is better.
        verdicts: arm -> not worse than dense by more than the margin; better than each control.
    """

    arm: str
    group: Group
    against: Mapping[str, Difference]
    verdicts: Mapping[str, Verdict]

    @property
    def winning(self) -> Verdict:
        """Whether it is: not worse than dense, and better than every control; undecided without a control."""
        verdicts = list(self.verdicts.values())
        if not set(self.verdicts) & set(CONTROLS) and "no" not in verdicts:
            return "undecided"
        return together(verdicts)


def decide(
    arms: Mapping[str, ArmResult], groups: Sequence[Group], metric: str, *, higher: bool, margin: float
) -> list[Decision]:
    """Ask of every arm that is a ticket, task by task: is it a winning one?

    Args:
        arms: as `read_arms` returns them; without the dense one nothing can be said.
        groups: (task, data set) pairs.
        metric: decides.
        higher: whether higher is better.
        margin: by how much, in the metric's unit, a ticket may be worse than the dense network.
    """
    decisions = []
    for arm in arms.values():
        if arm.name not in ARMS or arm.name in (DENSE, *CONTROLS) or DENSE not in arms:
            continue
        for group in groups:
            others = [arms[name] for name in (DENSE, *CONTROLS) if name in arms]
            found = [gap for other in others for gap in gaps(arm, -1, other, -1, [group], metric)]
            against = {gap.against: gap.difference.oriented(higher) for gap in found}
            verdicts = {
                name: not_worse(each, margin) if name == DENSE else better(each) for name, each in against.items()
            }
            decisions.append(Decision(arm.name, group, against, verdicts))
    return decisions
