"""The verbs that only tell: list, plan, cp; and the table of a run."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from prunekit.errors import RecipeError
from prunekit.registry import KINDS, Registry

if TYPE_CHECKING:
    from prunekit.amount import Target
    from prunekit.job import Job
    from prunekit.plan import Plan, Rewind
    from prunekit.report.table import Table as Plain

PROBE_STEPS = 3
COLUMNS = 5
DENSE = ("weights file", "MACs dense")
UNREGISTERED = (
    ("network", "timm:NAME", "timm, any model"),
    ("network", "spandrel:ARCH", "spandrel, any architecture"),
    ("network", "spandrel:FILE.pth", "spandrel, what the weights fit"),
    ("any", "python:MODULE:NAME", "your own code"),
)
"""What needs no entry: kind, name, where it comes from."""


def show_registry() -> None:
    """Print every registered name, its kind and the package it comes from, then the names that need no entry."""
    registry = Registry.discover()
    shown = Table("kind", "name", "from", box=None, pad_edge=False)
    for kind in KINDS:
        for name in registry.names(kind):
            shown.add_row(kind, name, registry.find(kind, name).distribution)
    for row in UNREGISTERED:
        shown.add_row(*row)
    Console(markup=False).print(shown)


def copy_recipe(name: str, file: Path) -> None:
    """Write a recipe's text to a new file."""
    from prunekit.recipe import recipe_text

    text = recipe_text(name, Registry.discover())
    try:
        with file.open("x", encoding="utf-8") as new:
            new.write(text)
    except FileExistsError:
        raise RecipeError(f"{file} exists already and is left as it is; choose another name.") from None
    except OSError as cause:
        raise RecipeError(f"{file} cannot be written: {cause}.") from cause
    Console(soft_wrap=True, markup=False).print(f"{file}: edit it, then: prunekit run {file}")


def show_plan(name: str, overrides: Sequence[str]) -> None:
    """Print the stages with their densities, steps and estimated time."""
    from prunekit.environment import keep_heap
    from prunekit.job import bind_job, expected
    from prunekit.recipe import read_recipe

    keep_heap()
    registry = Registry.discover()
    job = bind_job(read_recipe(name, overrides, registry), registry)
    model = job.model()
    total = sum(parameter.numel() for parameter in model.parameters())
    cut = job.pruner.start(model)
    prunable = cut.prunable
    seconds = step_seconds(job)
    shown = Table("stage", "steps", "rewind", "kept of prunable", "kept of all", "about", box=None, pad_edge=False)
    asked = asked_texts(job.plan)
    for stage, (_, density) in zip(job.plan, expected(job.plan, job.kept, prunable), strict=True):
        counts = (asked[stage.name], "") if density is None else kept_texts(round(density * prunable), prunable, total)
        steps = stage.end - stage.start.clock
        shown.add_row(
            stage.name,
            f"{stage.start.clock}..{stage.end}",
            f"{start_text(stage.start)}, clock {stage.start.clock}",
            *counts,
            f"{steps * seconds / 60:.1f} min",
        )
    console = Console(soft_wrap=True, markup=False)
    never = "all of them prunable" if prunable == total else f"{total - prunable:,} are never cut"
    console.print(f"{prunable:,} prunable of {total:,} parameters; {never}")
    console.print(shown)
    whole = sum(stage.end - stage.start.clock for stage in job.plan) * seconds
    console.print(
        f"about {whole / 60:.1f} min of training here, from {PROBE_STEPS} steps of {seconds * 1000:.0f} ms each; "
        "evaluation comes on top"
    )


def kept_texts(kept: int, prunable: int, total: int) -> tuple[str, str]:
    """Return what is kept of the prunable parameters and of all."""
    remaining = total - prunable + kept
    return f"{kept:,} ({kept / prunable:.2%})", f"{remaining:,} ({remaining / total:.2%})"


def asked_texts(plan: Plan) -> dict[str, str]:
    """Return stage -> what its network was asked to be: all that is known before training where weights decide."""
    texts, now = {}, ""
    for stage in plan:
        inside = [asked_text(target) for step, target in stage.prune_at if step < stage.end]
        texts[stage.name] = inside[-1] if inside else now
        now = asked_text(stage.prune_at[-1][1]) if stage.prune_at else now
    return texts


def asked_text(target: Target) -> str:
    """Say what a cut is asked for."""
    from prunekit.amount import MacDensity, Rate

    if isinstance(target, Rate):
        return f"{target.value:.2%} less than before"
    return f"at most {target.value:.2%}{' of MACs' if isinstance(target, MacDensity) else ''}"


def start_text(start: Rewind) -> str:
    """Say where a stage's weights come from."""
    if start.reinit is not None:
        return f"initialisation of seed {start.reinit}"
    return "trained weights" if start.weights is None else f"weights of step {start.weights}"


def step_seconds(job: Job) -> float:
    """Return the seconds of one training step, measured on the CPU without changing anything."""
    model = job.model()
    optimizer = job.task.optimizer(model)
    times = []
    for batch in itertools.islice(job.task.batches(0), PROBE_STEPS + 1):
        began_s = time.perf_counter()
        optimizer.zero_grad()
        job.task.loss(model, batch).backward()
        optimizer.step()
        times.append(time.perf_counter() - began_s)
    return min(times[1:])


def tables(run: Path) -> list[Table]:
    """Return a run's results as tables that fit 80 columns: what each stage costs, and how good it is.

    Sizes and multiply-adds of the dense network are in the report; here stand those of the ticket.
    """
    from prunekit.report.results import read_results
    from prunekit.report.table import costs, metrics, quality

    results = read_results(run)
    scores = [part for metric in metrics(results)[:1] for part in _narrow(quality(results, metric))]
    shown = []
    for plain in (costs(results), *scores):
        columns = [place for place, title in enumerate(plain.header) if title not in DENSE]
        titles = (plain.header[place].replace("latency, eager", "eager") for place in columns)
        table = Table(*titles, box=None, pad_edge=False)
        for row in plain.rows:
            table.add_row(*(row[place].replace(" %", "%").replace(" (", "\n(") for place in columns))
        shown.append(table)
    return shown


def _narrow(wide: Plain) -> Iterator[Plain]:
    """Cut a table into such of at most `COLUMNS` columns beside the first."""
    for start in range(1, len(wide.header), COLUMNS):
        columns = (0, *range(start, min(start + COLUMNS, len(wide.header))))
        rows = tuple(tuple(row[column] for column in columns) for row in wide.rows)
        yield replace(wide, header=tuple(wide.header[column] for column in columns), rows=rows)
