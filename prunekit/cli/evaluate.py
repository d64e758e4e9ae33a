"""``prunekit eval``: measure a run's weights again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from prunekit.errors import RunError
from prunekit.job import bind_job
from prunekit.launch import make_accelerator
from prunekit.recipe import apply_overrides
from prunekit.registry import Registry
from prunekit.store import done_stages, read_recipe_file
from prunekit.task import Measure, averages


def evaluate_run(run: Path, overrides: Sequence[str], *, stage: str | None, device: str) -> None:
    """Print the means of every metric of a stage's weights; overrides may name other data."""
    registry = Registry.discover()
    recipe = apply_overrides(read_recipe_file(run / "recipe.yaml"), overrides)
    job = bind_job(recipe, registry)
    folders = done_stages(run)
    if stage is not None and stage not in folders:
        raise RunError(f"{run} has no finished stage {stage!r}; finished: {', '.join(folders)}.")
    name = stage or list(folders)[-1]
    before = _count(job.model())
    model, cut = job.trained(folders[name])
    accelerator = make_accelerator(recipe.precision, device)
    model = accelerator.prepare_model(model, evaluation_mode=True).eval()
    with torch.no_grad():
        measures = job.task.evaluate(model)
    console = Console(soft_wrap=True, markup=False)
    now = _count(model)
    removed = f", {now:,} of {before:,} parameters since channels were removed" if now < before else ""
    console.print(f"{run}, stage {name}: density {cut.density:.2%}{removed}")
    console.print(means(measures))
    for line in protocols(measures):
        console.print(line, highlight=False)


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def means(measures: Sequence[Measure]) -> Table:
    """Return one row per task, data set and metric: the mean over items beside the untreated input's."""
    shown = Table("task", "data set", "items", "metric", "input", "output", box=None, pad_edge=False)
    for mean in sorted(averages(measures), key=lambda mean: (mean.task, mean.dataset)):
        baseline = "" if mean.baseline is None else f"{mean.baseline:.4g}"
        shown.add_row(mean.task, mean.dataset, str(mean.n), mean.metric, baseline, f"{mean.value:.4g}")
    return shown


def protocols(measures: Sequence[Measure]) -> Iterator[str]:
    """Yield a line for each metric: which way is up, and how it was computed."""
    ways = dict.fromkeys((measure.metric, measure.higher_is_better) for measure in measures)
    for metric, higher in ways:
        made = dict.fromkeys(measure.protocol for measure in measures if measure.metric == metric)
        yield f"{metric}: {'higher' if higher else 'lower'} is better; {' / '.join(made)}"
