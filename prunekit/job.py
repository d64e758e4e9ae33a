"""A recipe bound to code: the task, the pruner and the plan it stands for."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import nn

from prunekit.errors import RecipeError
from prunekit.plan import Plan, checked
from prunekit.pruner import NO_DATA, Pruner, Unstructured, solve_total
from prunekit.recipe import Named, Recipe, resolve
from prunekit.registry import Registry
from prunekit.schedule import Rate, Schedule
from prunekit.score import PerTensor
from prunekit.select import matching, parameters
from prunekit.task import Task
from prunekit.weights import load_weights


@final
@dataclass(frozen=True)
class Job:
    """What is to be run: ``recipe`` has every default filled in."""

    recipe: Recipe
    task: Task
    pruner: Pruner[Any]
    plan: Plan

    def model(self) -> nn.Module:
        """Build the network at its initialisation, seeded; leaves torch's random state as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.recipe.seed)
            return self.task.model()


def bind_job(recipe: Recipe, registry: Registry) -> Job:
    """Look up every name, check every option, build the task and the plan.

    Raises:
        PruneKitError: whatever is wrong with the recipe, the data it names, or the amounts it asks for.
    """
    task = resolve("task", recipe.task, registry, where="task", given=("seed",))
    pruner = resolve("pruner", recipe.prune, registry, where="prune")
    of = recipe.strategy.options.get("of", "prunable")
    if of not in ("prunable", "all"):
        raise RecipeError(f"strategy.of must be 'prunable' or 'all', not {of!r}: what the densities are shares of.")
    options = {key: value for key, value in recipe.strategy.options.items() if key != "of"}
    strategy = resolve(
        "strategy", Named(name=recipe.strategy.name, **options), registry, where="strategy", given=("steps",)
    )
    built: Task = task(seed=recipe.seed)
    made: Pruner[Any] = pruner()
    full = recipe.model_copy(
        update={
            "task": Named(**task.tree),
            "prune": Named(**pruner.tree),
            "strategy": Named.model_validate({**strategy.tree, "of": of}),
        }
    )
    model = Job(full, built, made, ()).model()
    cut = made.start(model)
    arguments = dict(strategy.arguments)
    if of == "all" and not isinstance(arguments.get("schedule"), Rate):
        arguments["schedule"] = _of_all(arguments["schedule"], model, cut.keys())
    plan: Plan = checked(strategy.factory(built.steps, **arguments))
    _rehearse(full, model, made, plan)
    return Job(full, built, made, plan)


def _rehearse(recipe: Recipe, model: nn.Module, pruner: Pruner[Any], plan: Plan) -> None:
    """Find now what would otherwise be found after hours: patterns, weights files and tickets that do not fit."""
    for stage in plan:
        for pattern in stage.start.keep:
            matching(pattern, model.state_dict(), "strategy.keep")
    if recipe.weights is not None:
        load_weights(model, recipe.weights)
    first = next((amount for stage in plan for _, amount in stage.prune_at), None)
    if isinstance(pruner, Unstructured) and isinstance(pruner.scorer, PerTensor) and first is not None:
        pruner.cut(model, pruner.start(model), first, NO_DATA)


def _of_all(schedule: Schedule, model: nn.Module, prunable: Collection[str]) -> Schedule:
    """Turn a schedule of densities of all parameters into one of densities of the prunable ones."""
    sizes = {name: parameter.numel() for name, parameter in parameters(model).items()}
    solve_total(schedule(1.0), sizes, prunable)  # so that an error names the target, not a step on the way to it
    return lambda progress: solve_total(schedule(progress), sizes, prunable)


def expected(plan: Plan, prunable: int) -> list[tuple[float, float]]:
    """Return each stage's density of the prunable parameters while it trains: (at its start, at its end).

    Args:
        plan: the stages.
        prunable: number of prunable parameters.

    Example:
        >>> from prunekit.plan import iterative
        >>> from prunekit.schedule import geometric
        >>> expected(iterative(10, geometric(0.25), rounds=2), 1000)
        [(1.0, 1.0), (0.5, 0.5), (0.25, 0.25)]
    """
    kept, rows = prunable, []
    for stage in plan:
        first = kept
        for step, amount in stage.prune_at:
            if step < stage.end:
                kept = amount.keep(kept, prunable)
        rows.append((first / prunable, kept / prunable))
        for step, amount in stage.prune_at:
            if step == stage.end:
                kept = amount.keep(kept, prunable)
    return rows
