"""The report for people: one Markdown page."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from prunekit.report.plots import CAPTIONS
from prunekit.report.results import StageResult, parse, unfinished
from prunekit.report.table import Table, costs, gaps, metrics, quality, si
from prunekit.store import read_recipe_file

ENVIRONMENT = ("prunekit", "torch", "python", "platform", "device", "cpu", "threads", "processes", "data")


def page(run: Path, results: Sequence[StageResult], pictures: Sequence[str], disk_bytes: int) -> str:
    """Return the report of the finished stages of a run; ``pictures`` are the file names beside it."""
    name = run.resolve().name
    parts = [f"# {name}", _what(run), "## What it costs", layout(costs(results))]
    for metric in metrics(results):
        parts += [f"## Quality: {metric}", layout(quality(results, metric)), _against_dense(results, metric)]
    parts += [f"![{picture}]({picture})\n\n{CAPTIONS[picture]}" for picture in pictures]
    parts += [
        "## What to know",
        "\n".join(f"* {line}" for line in findings(results)),
        "## Time and disk",
        _time(results, disk_bytes),
    ]
    parts += [
        "## Environment",
        "\n".join(f"* {key}: {value}" for key, value in environment(run)),
        "## Recipe",
        f"```yaml\n{_recipe(run)}\n```",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _what(run: Path) -> str:
    recipe = read_recipe_file(run / "recipe.yaml")
    saved, command = again(run)
    lines = [recipe.description] if recipe.description else []
    lines.append(
        f"Task `{recipe.task.name}`, pruner `{recipe.prune.name}`, strategy `{recipe.strategy.name}`, "
        f"seed {recipe.seed}, {recipe.precision}. {saved}\n\n```\n{command}\n```"
    )
    if missing := unfinished(run):
        lines.append(
            f"**Unfinished:** still to be done: {', '.join(missing)}. The command that started the run continues it."
        )
    return "\n\n".join(lines)


def again(run: Path) -> tuple[str, str]:
    """Return what to do with the recipe on a page, and the command that then repeats the run anywhere."""
    name = run.resolve().name
    command = shlex.join(["prunekit", "run", f"{name}.yaml", "--out", f"{name}-again"])
    return f"For the same again, save the recipe below as `{name}.yaml`, and give this command beside it:", command


def layout(table: Table) -> str:
    """Return a table as Markdown."""

    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    ruler = ["---", *["---:"] * (len(table.header) - 1)]
    return "\n".join([line(table.header), line(ruler), *map(line, table.rows)])


def _against_dense(results: Sequence[StageResult], metric: str) -> str:
    """The differences to the dense stage, item by item, and the protocols that the numbers were made by."""
    protocols = dict.fromkeys(mean.protocol for result in results for mean in result.means(metric))
    means = [mean for result in results for mean in result.means(metric)]
    brackets = "; in brackets the difference to the input" if any(mean.baseline is not None for mean in means) else ""
    text = (
        f"{'Higher' if means[0].higher_is_better else 'Lower'} is better. Means over items{brackets}. "
        f"Protocol: {'; '.join(protocols)}."
    )
    table = gaps(results, metric)
    return "\n\n".join((text, layout(table), *table.notes)) if table else text


def findings(results: Sequence[StageResult]) -> list[str]:
    """Return what a reader must know, a sentence a line; names stand between backticks."""
    last = results[-1]
    unused = next((result.unused for result in results if result.unused is not None), ())
    lines = [
        f"Never used in training (no gradient ever), yet counted in 'all': {_names(unused)}.",
        *(f"Emptied in {result.name} (nothing is left of them): {_names(result.emptied)}." for result in results),
        *costs(results).notes,
    ]
    if last.structured:
        left = f"{last.remaining:,} of {last.total:,} parameters are left"
    else:
        left = f"{last.kept:,} of {last.prunable:,} prunable parameters are kept and {last.remaining:,} of all "
        left += f"{last.total:,}"
    lines.append(
        f"In {last.name}, four different things: {left}; {last.bytes:,} bytes on disk; "
        f"{si(last.macs_kept)} of {si(last.macs_dense)} MACs; {last.latency_ms:.1f} ms."
    )
    return [line for line in lines if not (line.startswith("Emptied") and line.endswith("none."))]


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"


def _time(results: Sequence[StageResult], disk_bytes: int) -> str:
    rows = [(result.name, f"{result.seconds:.1f} s", f"{result.peak_mib:.0f} MiB") for result in results]
    rows.append(("all", f"{sum(result.seconds for result in results):.1f} s", ""))
    table = layout(Table(("stage", "wall time", "memory, most so far"), tuple(rows)))
    return f"{table}\n\nThe run takes {si(disk_bytes, 'B')} of disk, this report left out."


def environment(run: Path) -> list[tuple[str, str]]:
    """Return what a run's bits depend on besides its recipe: (what, value)."""

    def lines(held: Any) -> list[tuple[str, str]]:
        return [(key, str(held[key])) for key in ENVIRONMENT if key in held]

    return parse(run / "env.json", lines)


def _recipe(run: Path) -> str:
    return (run / "recipe.yaml").read_text(encoding="utf-8").strip()


def disk_use(run: Path, *besides: Path) -> int:
    """Return the bytes that a run takes, leaving out some folders; files that vanish meanwhile count nothing."""
    left_out, total = {path.resolve() for path in besides}, 0
    for folder, below, files in os.walk(run):
        below[:] = [name for name in below if (Path(folder) / name).resolve() not in left_out]
        for name in files:
            try:
                total += (Path(folder) / name).stat().st_size
            except FileNotFoundError:
                continue
    return total
