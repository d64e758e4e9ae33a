"""A study's numbers as CSV, with every digit."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from prunekit.study.overlap import Overlap
from prunekit.study.results import ArmResult, Decision, Gap


def gaps_csv(gaps: Iterable[Gap]) -> str:
    """Return one line for each arm, density, arm that it is compared with, task and metric."""
    rows = []
    for gap in gaps:
        found = gap.difference
        numbers = (found.mean, found.half, found.seeds, found.items)
        rows.append((gap.arm, gap.density, gap.against, *gap.group, gap.metric, *numbers))
    header = ("arm", "density_of_all", "against", "task", "dataset", "metric", "difference", "half_95_interval")
    return _csv((*header, "seeds", "items"), rows)


def verdicts_csv(decisions: Iterable[Decision], margin: float) -> str:
    """Return one line for each ticket, task and arm that it is compared with; differences are positive where better."""
    rows = [
        (each.arm, *each.group, each.winning, margin, other, found.mean, found.half, each.verdicts[other])
        for each in decisions
        for other, found in each.against.items()
    ]
    header = ("arm", "task", "dataset", "winning", "margin", "against", "better_by", "half_95_interval", "verdict")
    return _csv(header, rows)


def values_csv(arms: Iterable[ArmResult]) -> str:
    """Return one line for each arm, seed, density, task, item and metric: what was measured."""
    rows = [
        (arm.name, seed, stage.density_of_all, m.task, m.dataset, m.item, m.metric, m.value)
        for arm in arms
        for seed, stages in arm.stages.items()
        for stage in stages
        for m in stage.measures
    ]
    return _csv(("arm", "seed", "density_of_all", "task", "dataset", "item", "metric", "value"), rows)


def overlaps_csv(overlaps: Iterable[Overlap]) -> str:
    """Return one line for each pair of tickets, seed and tensor."""
    rows = [
        (
            pair.first,
            pair.second,
            seed,
            name,
            shared.first,
            shared.second,
            shared.both,
            shared.of_either,
            shared.chance,
        )
        for pair in overlaps
        for seed, tensors in pair.seeds.items()
        for name, shared in tensors.items()
    ]
    header = ("first", "second", "seed", "tensor", "kept_by_first", "kept_by_second", "kept_by_both")
    return _csv((*header, "share_of_either", "share_by_chance"), rows)


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
