"""A study's report: Markdown, CSV and pictures, from its directory alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from prunekit.files import write_text
from prunekit.report.markdown import layout
from prunekit.study import between, plots, tables
from prunekit.study.alone import compared_alone
from prunekit.study.clock import seconds_of
from prunekit.study.measured import Metric, Results, against_controls, against_dense, measured
from prunekit.study.overlap import overlaps
from prunekit.study.results import Gap
from prunekit.study.sheets import gaps_csv, overlaps_csv, values_csv, verdicts_csv
from prunekit.study.single import RANDOM, Each

HOW = (
    "Differences are paired: the same items, the same seeds, the dense network of the same seed. ± is half a 95 % "
    "interval over seeds and items, rather too wide than too narrow; no difference smaller than it could be told from "
    "none. 'Is it a winning ticket?' is yes where it is not worse than dense by more than the margin and better than "
    "every control, both with the whole interval; no where one of these is refuted; undecided otherwise, and where a "
    "control that was asked for is missing."
)
TENSORS = "Tensor by tensor, all seeds together, larger where more is kept; `overlap.csv` names them."


def write_study_report(results: Results) -> list[Path]:
    """Write ``report.md``, tables as CSV and pictures, and ``overlap.csv`` where single tasks were trained.

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
    if results.arms:
        parts += ["## What each arm costs", layout(tables.costs(results.arms)), _clock(results)]
    found = measured(results)
    pictures: list[Path] = []
    for number, metric in enumerate(found):
        compared = against_dense(results, metric)
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
    return [*_written(folder, {"report.md": "\n\n".join(parts) + "\n", **_sheets(results, found)}), *pictures]


def _sheets(results: Results, found: Sequence[Metric]) -> dict[str, str]:
    """Return file name -> CSV: what is compared, what is decided, every value, and what tickets have in common."""
    compared = [
        gap
        for metric in found
        for gaps in (against_dense(results, metric), against_controls(results, metric), _alone(results, metric))
        for gap in gaps
    ]
    decided = [decision for metric in found[:1] for decision in results.decisions(metric)]
    sheets = {
        "study.csv": gaps_csv(dict.fromkeys(compared)),
        "verdicts.csv": verdicts_csv(decided, results.asked.margin),
        "values.csv": values_csv(results.arms.values()),
    }
    if results.each is not None:
        sheets["overlap.csv"] = overlaps_csv(overlaps(results.each, results.arms))
    return sheets


def _written(folder: Path, texts: Mapping[str, str]) -> list[Path]:
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in texts]


def _clock(results: Results) -> str:
    runs = sum(arm.seconds for arm in results.arms.values())
    return (
        f"The stages of these runs took {tables.duration(runs)} in sum. By the clock this directory has been worked on "
        f"for {tables.duration(seconds_of(results.folder))}, all resumptions together, and whatever else was asked of "
        "it or stopped half way."
    )


def _verdicts(results: Results, metric: Metric) -> list[str]:
    title = f"## Is it a winning ticket? {metric.name}, margin {results.asked.margin:g}"
    return [title, layout(tables.verdicts(results.decisions(metric), metric.named, metric.places))]


def _alone(results: Results, metric: Metric) -> list[Gap]:
    """Return all gaps of and to the arms of single tasks, each once."""
    if results.each is None:
        return []
    moved = between.transfers(results.each, results.arms, metric.name)
    chance = between.transfers(results.each, results.arms, metric.name, against=RANDOM)
    mixed = between.interference(results.each, results.arms, metric.name)
    all_gaps = between.descents(results.each, results.arms, metric.name)
    return all_gaps + [gap for found in (*moved.values(), *chance.values(), *mixed) for gap in found]


def _between(results: Results, each: Each, metric: Metric, pictures: list[Path]) -> list[str]:
    """Return the sections on the tasks alone and together, and draw their pictures."""
    parts: list[str] = []
    for told in compared_alone(results, each, metric):
        parts += [f"## {told.title}", told.how, *([layout(told.table)] if told.table.rows else [])]
        if told.mixed:
            drawing = partial(
                plots.interference, found=told.mixed, named=told.named, metric=metric.name, higher=metric.higher
            )
            pictures.append(plots.draw(results.folder / "interference.png", drawing))
            parts.append("![interference.png](interference.png)")
        if told.shared:
            pictures.append(plots.draw(results.folder / "overlap.png", partial(plots.overlap, found=told.shared)))
            parts.append(f"![overlap.png](overlap.png)\n\n{TENSORS}")
    return parts
