"""``prunekit eval``: measure a run's weights again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from prunekit.errors import RunError
from prunekit.files import read_tensors
from prunekit.job import bind_job
from prunekit.recipe import apply_overrides
from prunekit.registry import Registry
from prunekit.rewind import restore
from prunekit.store import done_stages, read_recipe_file
from prunekit.task import Measure


def evaluate_run(run: Path, overrides: Sequence[str], *, stage: str | None, device: str) -> None:
    """Print the means of every metric of a stage's weights; overrides may name other data."""
    from prunekit.cli.run import make_accelerator

    registry = Registry.discover()
    recipe = apply_overrides(read_recipe_file(run / "recipe.yaml"), overrides)
    job = bind_job(recipe, registry)
    folders = done_stages(run)
    if stage is not None and stage not in folders:
        raise RunError(f"{run} has no finished stage {stage!r}; finished: {', '.join(folders)}.")
    name = stage or list(folders)[-1]
    model = job.model()
    restore(model, read_tensors(folders[name] / "weights.safetensors"))
    accelerator = make_accelerator(recipe.precision, device)
    model = accelerator.prepare_model(model, evaluation_mode=True).eval()
    with torch.no_grad():
        measures = job.task.evaluate(model)
    console = Console(soft_wrap=True)
    console.print(f"{run}, stage {name}")
    console.print(means(measures))


def means(measures: Sequence[Measure]) -> Table:
    """Return one row per task, data set and metric: the mean over items beside the untreated input's."""
    shown = Table("task", "data set", "items", "metric", "input", "output", "protocol", box=None, pad_edge=False)
    groups: dict[tuple[str, str, str, str], list[Measure]] = {}
    for measure in measures:
        groups.setdefault((measure.task, measure.dataset, measure.metric, measure.protocol), []).append(measure)
    for (task, dataset, metric, protocol), items in sorted(groups.items()):
        inputs = [item.baseline for item in items if item.baseline is not None]
        value = sum(item.value for item in items) / len(items)
        baseline = f"{sum(inputs) / len(inputs):.4g}" if inputs else ""
        shown.add_row(task, dataset, str(len(items)), metric, baseline, f"{value:.4g}", protocol)
    return shown
