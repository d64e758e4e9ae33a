"""A study's report: Markdown, CSV and a picture, from its directory alone."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from prunekit.errors import PruneKitError
from prunekit.files import write_atomic, write_text
from prunekit.report.markdown import layout
from prunekit.report.plots import STYLE, apart
from prunekit.report.results import StageResult
from prunekit.report.table import Group, Table, digits, labels, metrics
from prunekit.study.arms import DENSE
from prunekit.study.results import ArmResult, Decision, compare, decide
from prunekit.study.stats import Difference

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#444444")
HOW = (
    "Differences are paired: the same items, the same seeds, the dense network of the same seed. ± is half a 95 % "
    "interval over seeds and items, rather too wide than too narrow; no difference smaller than it could be told from "
    "none. 'Is it a winning ticket?' is yes where it is not worse than dense by more than the margin and better than "
    "every control, both with the whole interval; no where one of these is refuted; undecided otherwise."
)


def write_study_report(
    folder: Path, arms: Mapping[str, ArmResult], failed: Mapping[tuple[str, int], str], *, margin: float, command: str
) -> list[Path]:
    """Write ``report.md``, ``study.csv`` and ``study.png``; return the files, the page first.

    Args:
        folder: where to.
        arms: as `prunekit.study.results.read_arms` returns them.
        failed: (arm, seed) -> why.
        margin: in the unit of the first metric.
        command: makes the same study again.

    Raises:
        PruneKitError: matplotlib or scipy is missing.
    """
    found = [stage for arm in arms.values() for stages in arm.stages.values() for stage in stages]
    named = metrics(found)
    parts = [f"# Study {folder.resolve().name}", f"```\n{command}\n```", HOW]
    if failed:
        lines = [f"* {arm} of seed {seed}: {why}" for (arm, seed), why in sorted(failed.items())]
        parts += ["## Failed", "\n".join(lines)]
    parts += ["## What each arm costs", layout(costs(arms))]
    rows: list[tuple[Any, ...]] = []
    if named and DENSE in arms:
        groups, higher = labels(found, named[0]), _higher(found, named[0])
        places = digits(_mean(arms[DENSE].values(-1, group, named[0]).values()) for group in groups)
        decisions = decide(arms, list(groups), named[0], higher=higher, margin=margin)
        parts += [
            f"## Is it a winning ticket? {named[0]}, margin {margin:g}",
            layout(verdicts(decisions, groups, places)),
        ]
        for metric in named:
            parts += [
                f"## Against the dense network: {metric}",
                layout(gaps(arms, labels(found, metric), metric, rows)),
            ]
        parts.append("![study.png](study.png)\n\nThe first metric against the share of all parameters that is left.")
    write_text(folder / "report.md", "\n\n".join(parts) + "\n")
    write_text(folder / "study.csv", _csv(rows))
    files = [folder / "report.md", folder / "study.csv"]
    return [*files, *_draw(folder / "study.png", arms, labels(found, named[0]), named[0])] if rows else files


def costs(arms: Mapping[str, ArmResult]) -> Table:
    """Return every arm's density, steps and time."""
    rows = [
        (
            arm.name,
            f"{len(arm.stages)}",
            f"{100 * arm.density_of_all(-1):.2f} %",
            f"{arm.steps_after:,}",
            f"{arm.steps:,}",
            f"{arm.seconds / 60:.1f} min",
        )
        for arm in arms.values()
    ]
    rows.append(("all", "", "", "", "", f"{sum(arm.seconds for arm in arms.values()) / 60:.1f} min"))
    header = ("arm", "seeds", "left of all", "steps after the last cut", "steps in all", "time of its own stages")
    return Table(header, tuple(rows))


def verdicts(decisions: Sequence[Decision], named: Mapping[Group, str], places: int) -> Table:
    """Return what is decided of each ticket on each task, and the differences that decide it."""
    others = list(dict.fromkeys(name for decision in decisions for name in decision.against))
    rows = []
    for decision in decisions:
        cells = [
            f"{_text(decision.against[name], places)} ({decision.verdicts[name]})" if name in decision.against else "-"
            for name in others
        ]
        rows.append((decision.arm, named[decision.group], f"**{decision.winning}**", *cells))
    return Table(("arm", "task", "winning?", *(f"better than {name} by" for name in others)), tuple(rows))


def gaps(arms: Mapping[str, ArmResult], named: Mapping[Group, str], metric: str, rows: list[tuple[Any, ...]]) -> Table:
    """Return each arm's differences to dense at each density; append them to ``rows`` with full precision."""
    lines = []
    dense = arms[DENSE]
    means = {group: _mean(dense.values(-1, group, metric).values()) for group in named}
    places = digits(means.values())
    lines.append((DENSE, "100 %", *(f"{means[group]:.{places}f}" for group in named)))
    for arm in arms.values():
        if arm.name == DENSE or not set(arm.stages) & set(dense.stages):
            continue
        for point in range(arm.points):
            density = arm.density_of_all(point)
            found = {group: compare(arm, point, dense, group, metric) for group in named}
            lines.append((arm.name, f"{100 * density:.2f} %", *(_text(each, places) for each in found.values())))
            for (task, data), each in found.items():
                rows.append((arm.name, density, task, data, metric, each.mean, each.half, each.seeds, each.items))
    return Table(("arm", "left of all", *named.values()), tuple(lines))


def _text(difference: Difference, places: int) -> str:
    half = f" ± {difference.half:.{places}f}" if math.isfinite(difference.half) else " (one seed or item: no interval)"
    return f"{difference.mean:+.{places}f}{half}"


def _mean(values: Iterable[float]) -> float:
    return statistics.fmean(values)


def _higher(found: Sequence[StageResult], metric: str) -> bool:
    return next(m.higher_is_better for stage in found for m in stage.measures if m.metric == metric)


def _csv(rows: Sequence[tuple[Any, ...]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    header = ("arm", "density_of_all", "task", "dataset", "metric", "difference_to_dense", "half_95_interval")
    writer.writerow((*header, "seeds", "items"))
    writer.writerows(rows)
    return text.getvalue()


def _percents(axes: Any, densities: Sequence[float]) -> None:
    """Label a logarithmic axis of densities, falling to the right, with those that were measured."""
    low, high = min(densities), max(densities)
    axes.minorticks_off()
    gap = max(math.log(high / low), 0.1) / 4.5
    ticks = [math.exp(place) for place in apart([math.log(each) for each in (low, high, *densities)], gap)]
    axes.set_xticks(ticks, [f"{100 * tick:.3g} %" for tick in ticks])
    axes.set_xlim(high * 1.12, low / 1.12)


def _draw(path: Path, arms: Mapping[str, ArmResult], named: Mapping[Group, str], metric: str) -> list[Path]:
    try:
        from matplotlib import style
        from matplotlib.figure import Figure
    except ImportError as cause:
        raise PruneKitError('pictures need matplotlib: pip install "prunekit[report]".') from cause
    with style.context(["default", STYLE]):
        columns = min(3, len(named))
        figure = Figure(figsize=(max(6.0, 3.4 * columns + 0.4), 0.8 + 2.7 * math.ceil(len(named) / columns)))
        grid = figure.subplots(math.ceil(len(named) / columns), columns, squeeze=False).flatten()
        for axes in grid[len(named) :]:
            axes.set_visible(False)
        for axes, (group, label) in zip(grid, named.items(), strict=False):
            axes.axhline(0, color="#222222", dashes=(5, 3), lw=1, label="dense")
            shown = [arm for arm in arms.values() if arm.name != DENSE and set(arm.stages) & set(arms[DENSE].stages)]
            for number, (colour, arm) in enumerate(zip(COLOURS, shown, strict=False)):
                found = [compare(arm, point, arms[DENSE], group, metric) for point in range(arm.points)]
                x = [arm.density_of_all(point) * (1 + 0.006 * (number - 3)) for point in range(arm.points)]
                half = [each.half if math.isfinite(each.half) else math.nan for each in found]
                y = [each.mean for each in found]
                axes.errorbar(
                    x, y, half, color=colour, marker="o^svDPX"[number], ms=4, lw=1.2, capsize=2, label=arm.name
                )
            axes.set(title=label, xscale="log", xlabel="parameters left, of all")
            _percents(axes, [arm.density_of_all(point) for arm in shown for point in range(arm.points)])
        grid[0].set_ylabel(f"{metric}, less dense")
        figure.legend(*grid[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
        write_atomic(path, partial(figure.savefig, format="png", metadata={"Software": None}))
    return [path]
