"""The HTML page of a run: one file to look at, to print and to send."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from prunekit.errors import RunError
from prunekit.files import write_text
from prunekit.report.charts import Curve, against_density, per_tensor, training
from prunekit.report.document import Section, document, drawn, folded, prose, table
from prunekit.report.markdown import again, environment, findings
from prunekit.report.pictures import PLACE, scenes
from prunekit.report.plots import CAPTIONS, losses
from prunekit.report.results import StageResult, read_plan, read_results, unfinished
from prunekit.report.summary import stage_labels, summary, unit
from prunekit.report.table import Table, against, costs, dense, gaps, labels, metrics, quality
from prunekit.store import read_recipe_file

MOST_MARKS = 10_000  # of the plot of the tensors, about 130 bytes each
SLIDER = (
    "Move the line with the slider or on the picture; choose what stands left and right of it. The numbers are of the "
    "whole item, as it was evaluated, not of the part that is shown."
)


def write_html(run: Path, out: Path | None = None) -> Path:
    """Write ``report.html``: everything of a run in one file that loads nothing; the same run gives the same bytes.

    Args:
        run: a run directory, finished or not; only ``out`` is written to.
        out: folder for the page, made where it is missing; ``run/report`` by default.

    Raises:
        RunError: not a run directory, no stage finished yet, or a damaged file.
        PruneKitError: bokeh or pillow is missing.
    """
    file = (out or run / "report") / "report.html"
    write_text(file, html_page(run))
    return file


def html_page(run: Path) -> str:
    """Return the page of the finished stages of a run; errors as `write_html`'s."""
    results = finished(run)
    stages = stage_labels(results)
    sections = [
        Section("Summary", summary(results)),
        pictures(stages),
        _quality(stages),
        _sparsity(stages),
        _training(run, stages),
        Section("Every number", _numbers(results)),
        Section("What to know", f"<ul>{''.join(f'<li>{prose(line)}</li>' for line in findings(results))}</ul>"),
        Section("How it was made", _origin(run, results)),
    ]
    return document(run.resolve().name, _lead(run, results), sections)


def finished(run: Path) -> list[StageResult]:
    """Return a run's finished stages; raises RunError where there are none."""
    results = read_results(run)
    if not results:
        first = unfinished(run)[0]
        raise RunError(f"{run} has no finished stage to report: {first} is not done; give the run's command again.")
    return results


def _lead(run: Path, results: Sequence[StageResult]) -> str:
    recipe = read_recipe_file(run / "recipe.yaml")
    lines = [prose(recipe.description)] if recipe.description else []
    lines.append(
        prose(
            f"Task `{recipe.task.name}`, pruner `{recipe.prune.name}`, strategy `{recipe.strategy.name}`, "
            f"seed {recipe.seed}, {recipe.precision}."
        )
    )
    done = {result.name for result in results}  # not what is done by now: the run may go on meanwhile
    if missing := [name for name in read_plan(run) if name not in done]:
        lines.append(f"<strong>Unfinished:</strong> still to be done: {escape(', '.join(missing))}.")
    return "".join(f"<p>{line}</p>" for line in lines)


def pictures(stages: Mapping[str, StageResult]) -> Section:
    """Return the section of the samples, with sliders; empty where no stage has any."""
    found = scenes(stages)
    html = f'<p class="soft">{SLIDER}</p><div class="scenes">{PLACE}</div>' if found else ""
    return Section("Pictures", html, scenes=found)


def _quality(stages: Mapping[str, StageResult]) -> Section:
    results = list(stages.values())
    metric = next(iter(metrics(results)), None)
    if metric is None:
        return Section("Quality against density", "")
    reference, plots = dense(results), {}
    for number, (group, label) in enumerate(labels(results, metric).items()):
        found = {
            name: next((m for m in result.means(metric) if (m.task, m.dataset) == group), None)
            for name, result in stages.items()
        }
        means = {name: mean for name, mean in found.items() if mean}
        half = [against(stages[name], reference, metric).get(group, (0.0, math.nan))[1] for name in means]
        x = [stages[name].density_of_all for name in means]
        curve = Curve("this run", x, [mean.value for mean in means.values()], half, list(means))
        base = next(iter(means.values())).baseline
        lines = {"dense": means["dense"].value} if "dense" in means else {}
        lines |= {} if base is None else {"input": base}
        plots[f"quality-{number}"] = against_density(label, [curve], lines, unit(metric))
    note = f'<p class="soft">{escape(CAPTIONS["quality.png"])} A name in a legend switches its curve off and on.</p>'
    return Section("Quality against density", drawn(plots) + note, plots)


def _sparsity(stages: Mapping[str, StageResult]) -> Section:
    last = list(stages.values())[-1]
    if not last.per_tensor:
        return Section("Where the cutting fell", "")
    header = ("tensor", "kept", "of", "share")
    rows = [(name, f"{kept:,}", f"{size:,}", f"{100 * kept / size:.2f} %") for name, kept, size in last.per_tensor]
    emptied = ", ".join(f"`{name}`" for name in last.emptied) or "none"
    text = f"<p>Emptied in {escape(last.name)} (nothing is left of them): {prose(emptied)}.</p>"
    note = "The last stage is shown; a name in the legend brings another. The larger the mark, the larger the tensor; "
    note += "crosses: nothing is left. Where a cut leaves a smaller network, a layer that keeps half of its inputs and "
    note += "half of its outputs keeps a quarter of its weights."
    shown = _fitting(stages)
    if len(shown) < len(stages):
        note += f" Of {len(stages)} stages {len(shown)} are here: the page would be too large."
    plots = {"sparsity": per_tensor(shown)}
    html = drawn(plots) + f'<p class="soft">{note}</p>' + text
    html += folded(f"all {len(rows)} tensors of {last.name}", table(Table(header, tuple(rows))))
    return Section("Where the cutting fell", html, plots)


def _fitting(stages: Mapping[str, StageResult]) -> dict[str, StageResult]:
    """Return the last stage and as many others, evenly spaced, as a page has room for."""
    names = list(stages)
    step = math.ceil(len(names) * max(len(result.per_tensor) for result in stages.values()) / MOST_MARKS)
    return {name: stages[name] for name in names[::-1][::step][::-1]}


def _training(run: Path, stages: Mapping[str, StageResult]) -> Section:
    curves = losses(run)
    if not curves:
        return Section("Training", "")
    names = {result.name: label for label, result in stages.items()}
    plots = {"loss": training({names.get(name, name): curve for name, curve in curves.items()})}
    return Section("Training", drawn(plots) + f'<p class="soft">{CAPTIONS["loss.png"]}</p>', plots)


def _numbers(results: Sequence[StageResult]) -> str:
    parts = ["<h3>What each stage costs</h3>", table(costs(results))]
    for metric in metrics(results):
        between = gaps(results, metric)
        parts += [f"<h3>{escape(unit(metric))}</h3>", table(quality(results, metric))]
        parts += [table(between)] if between else []
    return "".join(parts)


def _origin(run: Path, results: Sequence[StageResult]) -> str:
    times = [(r.name, f"{r.seconds:.1f} s", f"{r.peak_mib:.0f} MiB") for r in results]
    recipe = escape((run / "recipe.yaml").read_text(encoding="utf-8").strip())
    return "".join(
        (
            f"<h3>The same again</h3><p>{prose(again(run)[0])}</p><pre>{escape(again(run)[1])}</pre>",
            protocol_and_data(results),
            "<h3>Environment</h3>" + table(Table(("what", "value"), tuple(environment(run))), kind="words"),
            "<h3>Time</h3>" + table(Table(("stage", "wall time", "memory, most so far"), tuple(times))),
            f"<h3>Recipe, every default filled in</h3><pre>{recipe}</pre>",
        )
    )


def protocol_and_data(results: Sequence[StageResult]) -> str:
    """Return how the metrics of some stages are computed, and on what; nothing where nothing was measured."""
    means = [mean for result in results for mean in result.means()]
    if not means:
        return ""
    protocols = dict.fromkeys((mean.metric, mean.protocol) for mean in means)
    sets = dict.fromkeys((mean.task, mean.dataset, str(mean.n)) for mean in means)
    html = "<h3>Protocol</h3>" + table(Table(("metric", "how it is computed"), tuple(protocols)), kind="words")
    return html + "<h3>Data</h3>" + table(Table(("task", "data set", "items"), tuple(sets)), kind="words")
