"""The HTML page of a study: what is decided, how the arms compare, and their pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape
from pathlib import Path

from prunekit.errors import RunError
from prunekit.files import write_text
from prunekit.report.charts import Curve, Plot, against_density
from prunekit.report.document import Section, document, drawn, table
from prunekit.report.html import pictures
from prunekit.report.results import unfinished
from prunekit.report.summary import unit
from prunekit.report.table import Group, Table, digits, labels, metrics
from prunekit.study.arms import ARMS, DENSE
from prunekit.study.folder import HELD
from prunekit.study.page import HOW, costs, gaps, verdicts
from prunekit.study.results import ArmResult, compare, decide, read_arms


def write_study_html(folder: Path, *, margin: float, out: Path | None = None) -> Path:
    """Write ``report.html`` of a study into ``out``, by default the study's directory.

    Args:
        folder: a study directory, finished or not.
        margin: by how much a ticket may be worse than the dense network, in the unit of the first metric.
        out: folder for the page.

    Raises:
        RunError: no arm is finished, or a file is damaged.
        PruneKitError: bokeh, pillow or scipy is missing.
    """
    seeds = sorted(int(path.name.removeprefix("seed-")) for path in folder.glob("seed-*") if path.is_dir())
    arms = read_arms(folder, tuple(ARMS), seeds)
    if not arms:
        raise RunError(f"{folder} has no finished arm to report: give the study's command again.")
    file = (out or folder) / "report.html"
    write_text(file, _page(folder, arms, margin))
    return file


def _page(folder: Path, arms: Mapping[str, ArmResult], margin: float) -> str:
    found = [stage for arm in arms.values() for stages in arm.stages.values() for stage in stages]
    metric = next(iter(metrics(found)), None)
    lasts = {arm.name: next(iter(arm.stages.values()))[-1] for arm in arms.values()}
    sections = [Section("What each arm costs", table(costs(arms))), pictures(lasts)]
    if metric is not None and DENSE in arms:
        named = labels(found, metric)
        plots = _plots(arms, named, metric)
        note = "Differences to the dense network of the same seed, with 95 % intervals over seeds and items."
        sections[:0] = [
            Section(f"Is it a winning ticket? {metric}, margin {margin:g}", _verdicts(arms, named, metric, margin)),
            Section("Against the dense network", f'{drawn(plots)}<p class="soft">{note}</p>', plots),
        ]
        tables = {each: gaps(arms, labels(found, each), each, []) for each in metrics(found)}
        html = "".join(f"<h3>{escape(unit(each))}</h3>{table(plain)}" for each, plain in tables.items())
        sections.append(Section("Every number", html))
    sections.append(Section("How it was made", _origin(folder)))
    return document(f"Study {folder.resolve().name}", "<p>Tickets and controls at one budget.</p>", sections)


def _verdicts(arms: Mapping[str, ArmResult], named: Mapping[Group, str], metric: str, margin: float) -> str:
    measures = (m for arm in arms.values() for stages in arm.stages.values() for m in stages[-1].measures)
    higher = next(m.higher_is_better for m in measures if m.metric == metric)
    decisions = decide(arms, list(named), metric, higher=higher, margin=margin)
    places = digits(value for group in named for value in arms[DENSE].values(-1, group, metric).values())
    plain = verdicts(decisions, named, places)
    rows = tuple(tuple(cell.replace("**", "") for cell in row) for row in plain.rows)
    return table(Table(plain.header, rows, (HOW,))) if rows else "<p>No arm beside the dense one is finished.</p>"


def _plots(arms: Mapping[str, ArmResult], named: Mapping[Group, str], metric: str) -> dict[str, Plot]:
    others = [arm for arm in arms.values() if arm.name != DENSE and set(arm.stages) & set(arms[DENSE].stages)]
    plots = {}
    for number, (group, label) in enumerate(named.items() if others else ()):
        curves = []
        for arm in others:
            points = range(arm.points)
            found = [compare(arm, point, arms[DENSE], group, metric) for point in points]
            half = [each.half if math.isfinite(each.half) else math.nan for each in found]
            densities = [arm.density_of_all(point) for point in points]
            curves.append(Curve(arm.name, densities, [each.mean for each in found], half, [arm.name] * len(found)))
        plots[f"arms-{number}"] = against_density(label, curves, {DENSE: 0.0}, f"{unit(metric)}, less dense")
    return plots


def _origin(folder: Path) -> str:
    left = [
        f"{run.parent.parent.name}/{run.parent.name}: {', '.join(unfinished(run.parent))}"
        for run in sorted(folder.glob("seed-*/*/plan.json"))
        if unfinished(run.parent)
    ]
    stopped = f"<p><strong>Unfinished:</strong> {escape('; '.join(left))}.</p>" if left else ""
    return f"{stopped}<h3>Recipe and k</h3><pre>{escape((folder / HELD).read_text(encoding='utf-8').strip())}</pre>"
