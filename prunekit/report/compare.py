"""The HTML page of several runs, side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from prunekit.errors import RunError
from prunekit.files import write_text
from prunekit.report.charts import Curve, Plot, against_density
from prunekit.report.document import Section, document, drawn, folded, prose, table
from prunekit.report.html import finished, pictures
from prunekit.report.markdown import again, environment
from prunekit.report.results import StageResult
from prunekit.report.summary import unit
from prunekit.report.table import Table, against, dense, digits, labels, metrics, si
from prunekit.store import differing, read_recipe_file


def write_comparison(runs: Sequence[Path], out: Path) -> Path:
    """Write ``report.html`` of several runs into ``out``; errors as `prunekit.report.html.write_html`'s.

    Args:
        runs: run directories, finished or not.
        out: folder for the page, made where it is missing.
    """
    file = out / "report.html"
    write_text(file, comparison_page(names(runs)))
    return file


def names(runs: Sequence[Path]) -> dict[str, Path]:
    """Return a name for each run: its folder's, or its path where two are alike.

    Raises:
        RunError: a run is named twice.

    Example:
        >>> list(names([Path("a/run"), Path("b/run"), Path("c/other")]))
        ['a/run', 'b/run', 'other']
    """
    short = [run.resolve().name for run in runs]
    resolved = [run.resolve() for run in runs]
    if twice := next((run for run in runs if resolved.count(run.resolve()) > 1), None):
        raise RunError(f"{twice} is named twice: name each run once.")
    return {(name if short.count(name) == 1 else str(run)): run for name, run in zip(short, runs, strict=True)}


def comparison_page(runs: Mapping[str, Path]) -> str:
    """Return the page of several runs by their names."""
    results = {name: finished(run) for name, run in runs.items()}
    lasts = {name: stages[-1] for name, stages in results.items()}
    plots = quality_plots(results)
    note = "Every stage of each run, by the first metric alone: each run's own page has the others. Bars: 1.96 "
    note += "standard errors of the differences to the run's own dense network."
    return document(
        " and ".join(runs) if len(runs) < 4 else f"{len(runs)} runs",
        "<p>The last finished stage of each run, side by side.</p>",
        [
            Section("Summary", table(summary(lasts))),
            Section("Quality against density", f'{drawn(plots)}<p class="soft">{note}</p>' if plots else "", plots),
            pictures(lasts),
            Section("What differs in the recipes", _differences(runs)),
            Section("Environment, data, protocol", _made(runs, lasts)),
            Section("The same again", _commands(runs)),
        ],
    )


def summary(lasts: Mapping[str, StageResult]) -> Table:
    """Return what each run's last stage keeps, costs and reaches of the first metric."""
    metric = next(iter(metrics(lasts.values())), "")
    named = labels(lasts.values(), metric)
    means = {name: {(m.task, m.dataset): m.value for m in last.means(metric)} for name, last in lasts.items()}
    rows = []
    for name, last in lasts.items():
        size = last.bytes if last.structured else last.ticket_bytes
        scores = [f"{means[name][g]:.{digits([means[name][g]])}f}" if g in means[name] else "-" for g in named]
        kept = f"{100 * last.density_of_all:.3g} %"
        rows.append((name, last.name, kept, si(size, "B"), si(last.macs_kept), f"{last.latency_ms:.1f} ms", *scores))
    header = ("run", "stage", "kept of all", "file", "MACs kept", "eager", *named.values())
    note = f"Scores are {unit(metric)}, means over the items. " if metric else ""
    note += "Times compare only where the runs were made on one machine at rest."
    return Table(header, tuple(rows), (note,))


def quality_plots(results: Mapping[str, Sequence[StageResult]]) -> dict[str, Plot]:
    """Return a plot for each task of the first metric, with a curve for each run."""
    everything = [stage for stages in results.values() for stage in stages]
    metric = next(iter(metrics(everything)), None)
    plots = {}
    for number, (group, label) in enumerate(labels(everything, metric).items() if metric else ()):
        curves = [curve(name, stages, group, str(metric)) for name, stages in results.items()]
        bases = {m.baseline for each in everything for m in each.means(metric) if (m.task, m.dataset) == group}
        base = bases.pop() if len(bases) == 1 else None
        lines = {} if base is None else {"input": base}
        plots[f"quality-{number}"] = against_density(label, curves, lines, unit(str(metric)))
    return plots


def curve(name: str, stages: Sequence[StageResult], group: tuple[str, str], metric: str) -> Curve:
    """Return one run's means of a metric against density, as far as its stages measure it."""
    reference = dense(stages)
    found = [(stage, mean) for stage in stages for mean in stage.means(metric) if (mean.task, mean.dataset) == group]
    half = [against(stage, reference, metric).get(group, (0.0, math.nan))[1] for stage, _ in found]
    x, y = [stage.density_of_all for stage, _ in found], [mean.value for _, mean in found]
    return Curve(name, x, y, half, [stage.name for stage, _ in found])


def _differences(runs: Mapping[str, Path]) -> str:
    trees: dict[str, dict[str, Any]] = {
        name: read_recipe_file(run / "recipe.yaml").model_dump(exclude={"description"}) for name, run in runs.items()
    }
    keys = differing(trees.values())
    rows = [(key, *(str(values[number]) for number in range(len(runs)))) for key, values in keys.items()]
    return table(Table(("key", *runs), tuple(rows)), kind="words") if rows else "<p>Nothing.</p>"


def _made(runs: Mapping[str, Path], lasts: Mapping[str, StageResult]) -> str:
    """Return where and on what each run was made and measured, side by side."""
    means = {name: last.means() for name, last in lasts.items()}
    parts: dict[str, dict[str, dict[str, str]]] = {
        "Environment": {name: dict(environment(run)) for name, run in runs.items()},
        "Data, items": {name: {f"{m.task}, {m.dataset}": str(m.n) for m in found} for name, found in means.items()},
        "Protocol": {name: {m.metric: m.protocol for m in found} for name, found in means.items()},
    }
    html = ""
    for title, columns in parts.items():
        keys = dict.fromkeys(key for column in columns.values() for key in column)
        rows = tuple((key, *(column.get(key, "-") for column in columns.values())) for key in keys)
        html += f"<h3>{title}</h3>{table(Table(('what', *runs), rows), kind='words')}" if rows else ""
    return html


def _commands(runs: Mapping[str, Path]) -> str:
    parts = []
    for name, run in runs.items():
        recipe = escape((run / "recipe.yaml").read_text(encoding="utf-8").strip())
        saved, command = again(run)
        told = f"<h3>{escape(name)}</h3><p>{prose(saved)}</p><pre>{escape(command)}</pre>"
        parts.append(told + folded("recipe", f"<pre>{recipe}</pre>"))
    return "".join(parts)
