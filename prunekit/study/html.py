"""The HTML page of a study: what is decided, how the arms compare, and their pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from pathlib import Path

from prunekit.errors import RunError
from prunekit.files import write_text
from prunekit.report.charts import Curve, Plot, against_density
from prunekit.report.document import Section, document, drawn, table
from prunekit.report.html import pictures
from prunekit.report.summary import unit
from prunekit.report.table import Table
from prunekit.study import tables
from prunekit.study.alone import compared_alone
from prunekit.study.arms import DENSE
from prunekit.study.folder import read_asked, read_failed
from prunekit.study.measured import Metric, Results, against_dense, measured
from prunekit.study.origin import origin
from prunekit.study.page import HOW
from prunekit.study.results import Gap, read_arms


def write_study_html(folder: Path, *, margin: float | None = None, out: Path | None = None) -> Path:
    """Write ``report.html`` of a study into ``out``, by default the study's directory.

    Args:
        folder: a study directory, finished or not.
        margin: by how much a ticket may be worse than the dense network, in the unit of the first metric; None takes
            the study's own.
        out: folder for the page.

    Raises:
        RunError: no arm is finished, or a file is damaged.
        PruneKitError: bokeh, pillow or scipy is missing.
    """
    seeds = sorted(int(path.name.removeprefix("seed-")) for path in folder.glob("seed-*") if path.name[5:].isdigit())
    asked = read_asked(folder)
    arms = read_arms(folder, asked.all_arms(), seeds)
    if not arms:
        raise RunError(f"{folder} has no finished arm to report: give the study's command again.")
    file = (out or folder) / "report.html"
    asked = asked if margin is None else replace(asked, margin=margin)
    write_text(file, _page(Results(folder, arms, read_failed(folder), asked, "")))
    return file


def _page(results: Results) -> str:
    lasts = {arm.name: next(iter(arm.stages.values()))[-1] for arm in results.main.values()}
    sections = [Section("What each arm costs", table(tables.costs(results.arms))), pictures(lasts)]
    numbers = []
    for place, metric in enumerate(measured(results)):
        compared = against_dense(results, metric)
        if not place:
            sections[:0] = [_verdicts(results, metric), _plots(compared, metric)]
            sections += _alone(results, metric)
        plain = tables.against_dense(metric.dense, compared, metric.named, metric.places)
        numbers.append(f"<h3>{escape(unit(metric.name))}</h3>{table(plain)}")
    sections += [Section("Every number", "".join(numbers)), Section("How it was made", origin(results))]
    name = results.folder.resolve().name
    return document(f"Study {name}", "<p>Tickets and controls at one budget.</p>", sections)


def _verdicts(results: Results, metric: Metric) -> Section:
    plain = tables.verdicts(results.decisions(metric), metric.named, metric.places)
    rows = tuple(tuple(cell.replace("**", "") for cell in row) for row in plain.rows)
    html = table(Table(plain.header, rows, (HOW,))) if rows else "<p>No arm beside the dense one is finished.</p>"
    return Section(f"Is it a winning ticket? {metric.name}, margin {results.asked.margin:g}", html)


def _alone(results: Results, metric: Metric) -> list[Section]:
    """Return what there is to say of single tasks; the pictures of it are in the Markdown report."""
    if results.each is None:
        return []
    return [
        Section(told.title, table(Table(told.table.header, told.table.rows, (told.how,))))
        if told.table.rows
        else Section(told.title, f"<p>{escape(told.how)}</p>")
        for told in compared_alone(results, results.each, metric)
    ]


def _plots(compared: Sequence[Gap], metric: Metric) -> Section:
    """Return a plot for each task, with a curve for each arm."""
    plots: dict[str, Plot] = {}
    for number, (group, label) in enumerate(metric.named.items()):
        mine = [gap for gap in compared if gap.group == group]
        curves = []
        for arm in dict.fromkeys(gap.arm for gap in mine):
            found = [gap for gap in mine if gap.arm == arm]
            half = [each.difference.half if math.isfinite(each.difference.half) else math.nan for each in found]
            x, y = [each.density for each in found], [each.difference.mean for each in found]
            curves.append(Curve(arm, x, y, half, [arm] * len(found)))
        if curves:
            plots[f"arms-{number}"] = against_density(label, curves, {DENSE: 0.0}, f"{unit(metric.name)}, less dense")
    note = "Differences to the dense network of the same seed, with 95 % intervals over seeds and items."
    html = f'{drawn(plots)}<p class="soft">{note}</p>' if plots else ""
    return Section("Against the dense network", html, plots)
