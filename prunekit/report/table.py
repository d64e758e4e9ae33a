"""Finished stages as tables of text, for the terminal and for Markdown."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import final

from prunekit.report.results import StageResult

Group = tuple[str, str]  # task, dataset: what a mean is taken over
NOTES = (
    "'Kept of prunable' and 'kept of all' have two denominators: what no cut may touch counts in the second only.",
    "The weights file stores the zeros too; 'as a ticket' are the mask bits and values that `prunekit export` writes, "
    "whose header adds about 0.3 kB a tensor.",
    "MACs are multiply-adds of one forward pass of the task's example input; 'MACs kept' are those with a kept weight.",
    "Latency is a median in eager PyTorch on that input; masks do not make it shorter.",
)
SMALLER = (
    "A structured cut leaves a smaller dense network: parameters, file, MACs and latency are that network's own. What "
    "the recipe asks for is met from below, as channels go whole.",
    "MACs are multiply-adds of one forward pass of the task's example input, products of activations among them.",
    "Latency is a median in eager PyTorch on that input; of small layers much of it is not arithmetic.",
)


@final
@dataclass(frozen=True)
class Table:
    """Texts to be laid out: a header, rows of as many cells, and what a reader must know."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def metrics(results: Iterable[StageResult]) -> tuple[str, ...]:
    """Return the names of the metrics; the first is the headline."""
    return tuple(dict.fromkeys(measure.metric for result in results for measure in result.measures))


def labels(results: Iterable[StageResult], metric: str) -> dict[Group, str]:
    """Return (task, dataset) with this metric -> the task's name, followed by the data set's where it has several."""
    found = [measure for result in results for measure in result.measures if measure.metric == metric]
    groups = list(dict.fromkeys((measure.task, measure.dataset) for measure in found))
    tasks = [task for task, _ in groups]
    return {(task, data): f"{task} ({data})" if tasks.count(task) > 1 else task for task, data in groups}


def dense(results: Sequence[StageResult]) -> StageResult | None:
    """Return the first stage of which nothing was cut."""
    return next((result for result in results if result.density == 1), None)


def against(result: StageResult, reference: StageResult | None, metric: str) -> dict[Group, tuple[float, float]]:
    """Return (task, dataset) -> mean over items of the difference to ``reference``, and half its 95 % interval.

    The interval is 1.96 standard errors of the paired differences, nan where fewer than two items are finite.
    """
    values = {
        (m.task, m.dataset, m.item): m.value for m in (reference.measures if reference else ()) if m.metric == metric
    }
    groups: dict[Group, list[float]] = {}
    for m in result.measures:
        if m.metric == metric and (key := (m.task, m.dataset, m.item)) in values:
            groups.setdefault(key[:2], []).append(m.value - values[key])
    return {group: (statistics.fmean(differences), _half(differences)) for group, differences in groups.items()}


def costs(results: Sequence[StageResult]) -> Table:
    """Return what each stage keeps and costs."""
    if any(result.structured for result in results):
        return _costs_of_smaller(results)
    first = results[0]
    columns = (
        "stage",
        "steps",
        f"kept of prunable ({first.prunable:,})",
        f"kept of all ({first.total:,})",
        "weights file",
        "as a ticket",
    )
    rows = [
        (
            result.name,
            f"{result.steps:,}",
            _share(result.kept, result.prunable),
            _share(result.remaining, result.total),
            si(result.bytes, "B"),
            si(result.ticket_bytes, "B"),
            si(result.macs_dense),
            si(result.macs_kept),
            f"{result.latency_ms:.1f} ms",
        )
        for result in results
    ]
    return Table((*columns, "MACs dense", "MACs kept", "latency, eager"), tuple(rows), NOTES)


def _costs_of_smaller(results: Sequence[StageResult]) -> Table:
    """Return the costs of smaller dense networks, of which every parameter was prunable."""
    first = results[0]
    columns = ("stage", "steps", f"parameters (of {first.total:,})", "file", f"MACs (of {si(first.macs_dense)})")
    rows = [
        (
            result.name,
            f"{result.steps:,}",
            _share(result.remaining, result.total),
            si(result.bytes, "B"),
            f"{si(result.macs_kept)} ({100 * result.macs_kept / max(1, result.macs_dense):.2f} %)",
            f"{result.latency_ms:.1f} ms",
        )
        for result in results
    ]
    return Table((*columns, "latency, eager"), tuple(rows), SMALLER)


def quality(results: Sequence[StageResult], metric: str) -> Table:
    """Return one metric per task: of the input where it has it (first, differences in brackets), and of every stage."""
    named = labels(results, metric)
    rows: dict[str, list[str]] = {"input": [], **{result.name: [] for result in results}}
    for group in named:
        found = {r.name: next((m for m in r.means(metric) if (m.task, m.dataset) == group), None) for r in results}
        base = next((mean.baseline for mean in found.values() if mean), None)
        places = digits([base, *(mean.value for mean in found.values() if mean)])
        rows["input"].append("-" if base is None else f"{base:.{places}f}")
        for name, mean in found.items():
            gain = "" if base is None or mean is None else f" ({mean.value - base:+.{places}f})"
            rows[name].append("-" if mean is None else f"{mean.value:.{places}f}{gain}")
    if set(rows["input"]) <= {"-"}:  # as in classification
        del rows["input"]
    header = ("stage", *(f"{label} {metric}" for label in named.values()))
    return Table(header, tuple((name, *cells) for name, cells in rows.items()))


def gaps(results: Sequence[StageResult], metric: str) -> Table | None:
    """Return every other stage's differences to the dense one, item by item; None where there is nothing to compare."""
    reference, named = dense(results), labels(results, metric)
    others = [result for result in results if result is not reference]
    if reference is None or not others:
        return None
    counts = {(mean.task, mean.dataset): mean.n for mean in reference.means(metric)}
    places = digits(mean.value for mean in reference.means(metric))
    rows = []
    for result in others:
        found = against(result, reference, metric)
        rows.append((result.name, *(gap_text(found.get(group), places) for group in counts)))
    note = (
        f"Differences to the dense stage {reference.name}, item by item: mean ± 1.96 standard errors, a 95 % interval "
        "where the items are many."
    )
    header = ("against dense", *(f"{named[group]} (n = {n})" for group, n in counts.items()))
    return Table(header, tuple(rows), (note,))


def gap_text(gap: tuple[float, float] | None, places: int) -> str:
    """Write a difference and half of its interval, as far as there are any.

    Example:
        >>> gap_text((-0.5, 0.25), 2), gap_text((0.5, math.nan), 2)
        ('-0.50 ± 0.25', '+0.50')
        >>> gap_text(None, 2)
        '-'
    """
    if gap is None:
        return "-"
    mean, half = gap
    return f"{mean:+.{places}f} ± {half:.{places}f}".replace(" ± nan", "")


def digits(values: Iterable[float | None]) -> int:
    """Return how many decimals show four significant digits or so: 2 for decibels, 4 for shares."""
    return (
        2 if max((abs(value) for value in values if value is not None and math.isfinite(value)), default=0) >= 10 else 4
    )


def si(count: float, unit: str = "") -> str:
    """Write a count with a prefix.

    Example:
        >>> si(43_100_000_000), si(1234, "B")
        ('43.1 G', '1.234 kB')
        >>> si(999_949), si(999_999)
        ('999.9 k', '1 M')
    """
    power = next((power for power in range(4) if float(f"{count / 1000**power:.4g}") < 1000), 4)
    return f"{count / 1000**power:.4g} {('', 'k', 'M', 'G', 'T')[power]}{unit}".strip()


def _share(part: int, whole: int) -> str:
    return f"{part:,} ({100 * part / max(1, whole):.2f} %)"


def _half(differences: Sequence[float]) -> float:
    if len(differences) < 2 or not all(map(math.isfinite, differences)):
        return math.nan
    return 1.96 * statistics.stdev(differences) / math.sqrt(len(differences))
