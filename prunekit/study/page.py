"""A study's report: Markdown, CSV and pictures, from its directory alone."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from prunekit.files import write_text
from prunekit.report.markdown import layout
from prunekit.study import between, plots, tables
from prunekit.study.alone import compared_alone
from prunekit.study.clock import seconds_of
from prunekit.study.measured import Metric, Results, against_dense, measured
from prunekit.study.overlap import overlaps
from prunekit.study.results import Gap, decide
from prunekit.study.sheets import gaps_csv, overlaps_csv
from prunekit.study.single import Each

HOW = (
    "Differences are paired: the same items, the same seeds, the dense network of the same seed. ± is half a 95 % "
    "interval over seeds and items, rather too wide than too narrow; no difference smaller than it could be told from "
    "none. 'Is it a winning ticket?' is yes where it is not worse than dense by more than the margin and better than "
    "every control, both with the whole interval; no where one of these is refuted; undecided otherwise."
)
TENSORS = "Tensor by tensor, all seeds together, larger where more is kept; `overlap.csv` names them."


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
    parts: list[str] = []
    for told in compared_alone(results, each, metric):
        parts += [f"## {told.title}", told.how, *([layout(told.table)] if told.table.rows else [])]
        if told.mixed:
            drawing = partial(
                plots.interference, found=told.mixed, named=named, metric=metric.name, higher=metric.higher
            )
            pictures.append(plots.draw(results.folder / "interference.png", drawing))
            parts.append("![interference.png](interference.png)")
        if told.shared:
            pictures.append(plots.draw(results.folder / "overlap.png", partial(plots.overlap, found=told.shared)))
            parts.append(f"![overlap.png](overlap.png)\n\n{TENSORS}")
    return parts
