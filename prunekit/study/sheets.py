"""A study's numbers as CSV, with every digit."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from prunekit.study.overlap import Overlap
from prunekit.study.results import Gap


def gaps_csv(gaps: Iterable[Gap]) -> str:
    """Return one line for each arm, density, arm that it is compared with, task and metric."""
    rows = []
    for gap in gaps:
        found = gap.difference
        numbers = (found.mean, found.half, found.seeds, found.items)
        rows.append((gap.arm, gap.density, gap.against, *gap.group, gap.metric, *numbers))
    header = ("arm", "density_of_all", "against", "task", "dataset", "metric", "difference", "half_95_interval")
    return _csv((*header, "seeds", "items"), rows)


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
