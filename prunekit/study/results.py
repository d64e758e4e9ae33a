"""A study's directory as plain data: every arm's stages over the seeds, and how they compare with the dense network."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from prunekit.report.results import StageResult, read_plan, read_results, unfinished
from prunekit.report.table import Group
from prunekit.study.arms import ARMS, CONTROLS, DENSE, Arm, is_dense
from prunekit.study.stats import Difference, Values, Verdict, better, comparable, not_worse, paired, together


@final
@dataclass(frozen=True)
class ArmResult:
    """The finished runs of one arm.

    Args:
        stages: seed -> its finished stages, in order, the dense one left out.
        steps_after: optimiser steps after the last cut.
        steps: of its own stages; those of the dense one that it goes on from are the dense arm's.
        seconds: wall time of its own stages, over all seeds.
        after: the arm that it needs, as `prunekit.study.arms.Arm` has it.
    """

    name: str
    stages: Mapping[int, Sequence[StageResult]]
    steps_after: int
    steps: int
    seconds: float
    after: str | None = None

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


def read_arms(folder: Path, arms: Mapping[str, Arm], seeds: Sequence[int]) -> dict[str, ArmResult]:
    """Read the arms of which some seed has finished; errors as `prunekit.report.results.read_results`."""
    found = {}
    for arm, how in arms.items():
        runs = {seed: folder / f"seed-{seed}" / arm for seed in seeds}
        runs = {seed: run for seed, run in runs.items() if (run / "plan.json").is_file() and not unfinished(run)}
        if runs:
            found[arm] = _read_arm(arm, how.after, runs)
    return found


def _read_arm(arm: str, after: str | None, runs: Mapping[int, Path]) -> ArmResult:
    whole = {seed: read_results(run) for seed, run in runs.items()}
    own = {seed: stages if is_dense(arm) else stages[1:] for seed, stages in whole.items()}
    steps = list(read_plan(next(iter(runs.values()))).values())
    mine = steps[1:] if after is not None and is_dense(after) else steps
    seconds = sum(stage.seconds for stages in own.values() for stage in stages)
    return ArmResult(arm, own, steps[-1], sum(mine), seconds, after)


def steps_with_needs(arm: ArmResult, arms: Mapping[str, ArmResult]) -> int:
    """Return the optimiser steps of one seed of an arm and of all that it needs: a ticket must be found first."""
    needed = arms.get(arm.after) if arm.after is not None else None
    return arm.steps + (steps_with_needs(needed, arms) if needed else 0)


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
        arm, other: their seeds and items are paired; nothing is returned of a task where they share none.
        point, at: which of their densities.
        groups: (task, data set) pairs; those that not both measure are left out.
        metric: its name.
    """
    pairs = [(group, arm.values(point, group, metric), other.values(at, group, metric)) for group in groups]
    density = arm.density_of_all(point)
    return [
        Gap(arm.name, density, other.name, group, metric, paired(mine, others))
        for group, mine, others in pairs
        if comparable(mine, others)
    ]


@final
@dataclass(frozen=True)
class Decision:
    """Whether an arm's last ticket is a winning one on one task.

    Args:
        against: arm -> difference in the metric, positive where the ticket is better.
        verdicts: arm -> not worse than dense by more than the margin; better than each control.
        missing: arms that were asked for and cannot be compared: they failed, or share no seed or item.
    """

    arm: str
    group: Group
    against: Mapping[str, Difference]
    verdicts: Mapping[str, Verdict]
    missing: tuple[str, ...] = ()

    @property
    def winning(self) -> Verdict:
        """Whether it is: not worse than dense, and better than every control; undecided without one, or one short."""
        verdicts = list(self.verdicts.values())
        if (self.missing or not set(self.verdicts) & set(CONTROLS)) and "no" not in verdicts:
            return "undecided"
        return together(verdicts)


def decide(
    arms: Mapping[str, ArmResult],
    groups: Sequence[Group],
    metric: str,
    *,
    asked: Collection[str],
    higher: bool,
    margin: float,
) -> list[Decision]:
    """Ask of every arm that is a ticket, task by task: is it a winning one?

    Args:
        arms: as `read_arms` returns them; without the dense one nothing can be said.
        groups: (task, data set) pairs.
        metric: decides.
        asked: the arms that were to be run; a ticket that lacks a control among them is undecided.
        higher: whether higher is better.
        margin: by how much, in the metric's unit, a ticket may be worse than the dense network.
    """
    decisions = []
    for (arm, group), found in deciding(arms, groups, metric).items():
        against = {gap.against: gap.difference.oriented(higher) for gap in found}
        verdicts = {name: not_worse(each, margin) if name == DENSE else better(each) for name, each in against.items()}
        missing = tuple(name for name in (DENSE, *CONTROLS) if name in asked and name not in against)
        decisions.append(Decision(arm, group, against, verdicts, missing))
    return decisions


def deciding(arms: Mapping[str, ArmResult], groups: Sequence[Group], metric: str) -> dict[tuple[str, Group], list[Gap]]:
    """Return (ticket, (task, data set)) -> how it differs, at its last density, from the dense arm and each control."""
    tickets = [arm for arm in arms.values() if arm.name in ARMS and arm.name not in (DENSE, *CONTROLS)]
    others = [arms[name] for name in (DENSE, *CONTROLS) if name in arms]
    if DENSE not in arms:
        return {}
    return {
        (arm.name, group): [gap for other in others for gap in gaps(arm, -1, other, -1, [group], metric)]
        for arm in tickets
        for group in groups
    }
