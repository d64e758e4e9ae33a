"""The numbers for other programs: CSV with full precision, empty cells where there is nothing to say."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterable, Sequence
from typing import Any

from prunekit.report.results import StageResult
from prunekit.report.table import against, dense
from prunekit.task import Mean, Measure

COSTS = (
    *("density", "density_of_all", "kept", "prunable", "remaining", "total", "bytes", "ticket_bytes"),
    *("macs_dense", "macs_kept", "latency_ms", "seconds", "peak_mib"),
)
MEANS = tuple(field.name for field in dataclasses.fields(Mean))
MEASURES = tuple(field.name for field in dataclasses.fields(Measure))


def results_csv(results: Sequence[StageResult]) -> str:
    """Return one line per stage, task, data set and metric, with the stage's costs repeated."""
    header = ("stage", "steps", *MEANS, "difference_to_dense", "half_95_interval", *COSTS)
    lines: list[list[Any]] = []
    for result in results:
        costs = [getattr(result, name) for name in COSTS]
        for mean in result.means():
            found = against(result, dense(results), mean.metric).get((mean.task, mean.dataset), ("", ""))
            gap = [None if number != number else number for number in found]
            lines.append([result.name, result.steps, *dataclasses.astuple(mean), *gap, *costs])
        if not result.measures:
            lines.append([result.name, result.steps, *[None] * (len(MEANS) + 2), *costs])
    return _csv(header, lines)


def measures_csv(results: Sequence[StageResult]) -> str:
    """Return one line per stage and item's measure."""
    lines = [(result.name, *dataclasses.astuple(measure)) for result in results for measure in result.measures]
    return _csv(("stage", *MEASURES), lines)


def _csv(header: Iterable[str], lines: Iterable[Iterable[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(lines)
    return text.getvalue()
