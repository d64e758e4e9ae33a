"""A recipe bound to code: the task, the pruner and the plan it stands for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any, final

import torch
from torch import nn

from prunekit.amount import MacDensity, Rate, Target
from prunekit.denominator import OF, share_of
from prunekit.errors import RecipeError
from prunekit.files import read_tensors
from prunekit.plan import Plan, checked
from prunekit.pruner import Cut, Pruner
from prunekit.recipe import Named, Recipe, resolve
from prunekit.registry import Registry
from prunekit.rewind import restore
from prunekit.score import FromData, Scorer, magnitude
from prunekit.select import matching, parameters
from prunekit.shape import Shape
from prunekit.task import Task, task_data
from prunekit.weights import load_weights


@final
@dataclass(frozen=True)
class Job:
    """What is to be run: ``recipe`` has every default filled in.

    ``kept`` is how many of the prunable parameters each cut of the plan leaves, as rehearsed; None where a target on
    multiply-adds, or a structured cut, leaves that to the trained weights.
    """

    recipe: Recipe
    task: Task
    pruner: Pruner[Any]
    plan: Plan
    kept: tuple[int | None, ...] = ()

    @property
    def tracks(self) -> bool:
        """Whether the scorer wants to know how training moves the weights."""
        scorer = getattr(self.pruner, "scorer", None)
        return isinstance(scorer, FromData) and scorer.tracks

    def model(self, *, seed: int | None = None) -> nn.Module:
        """Build the network at its initialisation, by the recipe's seed or another; torch's random state stays."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.recipe.seed if seed is None else seed)
            return self.task.model()

    def trained(self, folder: Path) -> tuple[nn.Module, Cut]:
        """Return the network as a stage has trained it, and the cut that it obeys, from the folder of its results."""
        model = self.model()
        cut: Cut = self.pruner.load(read_tensors(folder / "cut.safetensors"))
        cut.apply_(model)
        restore(model, read_tensors(folder / "weights.safetensors"))
        return model, cut


def bind_job(recipe: Recipe, registry: Registry) -> Job:
    """Look up every name, check every option, build the task and the plan.

    Raises:
        PruneKitError: whatever is wrong with the recipe, the data it names, or the amounts it asks for.
    """
    task = resolve("task", recipe.task, registry, where="task", given=("seed",))
    pruner = resolve("pruner", recipe.prune, registry, where="prune")
    of = recipe.strategy.options.get("of", "prunable")
    if of not in OF:
        raise RecipeError(f"strategy.of must be one of {', '.join(OF)}, not {of!r}: what the densities are shares of.")
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
    cut: Cut = made.start(model)
    plan = checked(strategy(steps=built.steps))
    free = list(cut.per_tensor())
    if isinstance(cut, Shape):
        _refuse_inside(plan)
        free.append("")  # products of activations shrink with the channels
    job = Job(full, built, made, _retargeted(plan, share_of(of, model, free, built.example)))
    return replace(job, kept=rehearse(job, model))


def rehearse(job: Job, model: nn.Module) -> tuple[int | None, ...]:
    """Find now what would otherwise be found after hours: patterns, weights, scores and amounts that do not fit.

    Every cut of the plan is made once on the untrained network, with one batch for the scorer; where what a cut leaves
    depends on the weights, the first and the least. ``model`` is given up.

    Returns:
        ``Job.kept``.
    """
    for stage in job.plan:
        for pattern in stage.start.keep:
            matching(pattern, model.state_dict(), "strategy.keep")
    if job.recipe.weights is not None:
        load_weights(model, job.recipe.weights)
    targets = [target for stage in job.plan for _, target in stage.prune_at]
    if not targets:
        return ()
    if job.tracks:
        _refuse_untrained(job.plan)
    standing = {name: torch.zeros_like(each, requires_grad=False) for name, each in parameters(model).items()}
    data = task_data(job.task, torch.device("cpu"), standing).first(1)
    quick, start = _scored(job.pruner, lambda _: magnitude()), job.pruner.start(model)
    cut: Cut = _scored(job.pruner, _once).cut(model, start, targets[0], data)
    if isinstance(targets[-1], MacDensity) or isinstance(cut, Shape):
        if targets[1:]:
            quick.cut(model, start, _in_one(targets), data)  # the least; what lies between can be met, too
        return (None,) * len(targets)
    kept = [cut.kept]
    for target in targets[1:]:
        cut = quick.cut(model, cut, target, data)
        kept.append(cut.kept)
    return tuple(kept)


def _in_one(targets: Sequence[Target]) -> Target:
    """Return what a plan's cuts come to; rates multiply."""
    rates = [target.value for target in targets if isinstance(target, Rate)]
    return Rate(1 - math.prod(1 - rate for rate in rates)) if rates else targets[-1]


def _refuse_inside(plan: Plan) -> None:
    """Refuse structured cuts within a training."""
    for stage in plan:
        if inside := [step for step, _ in stage.prune_at if step < stage.end]:
            raise RecipeError(
                f"strategy: stage {stage.name} cuts at step {inside[0]}, within its training. A structured cut changes "
                "the sizes of the weights, and the optimiser with its moments would have to be made anew: choose "
                "iterative, one_shot or at_init, which cut between trainings, or prune.name=unstructured."
            )


def _refuse_untrained(plan: Plan) -> None:
    for stage in plan:
        for step, _ in stage.prune_at:
            if step <= stage.start.clock:
                raise RecipeError(
                    f"prune.scorer looks at how training moves the weights, and stage {stage.name} cuts at step "
                    f"{step}, before it has trained: train first (dense: true, a later begin), or choose another."
                )


def _scored(pruner: Any, change: Callable[[Any], Scorer]) -> Pruner[Any]:
    """Return the pruner with another scorer in place of its own, if it has one."""
    has = is_dataclass(pruner) and hasattr(pruner, "scorer")
    scored: Pruner[Any] = replace(pruner, scorer=change(pruner.scorer)) if has else pruner
    return scored


def _once(scorer: Scorer) -> Scorer:
    return replace(scorer, times=1) if isinstance(scorer, FromData) else scorer


def _retargeted(plan: Plan, turned: Callable[[Target], Target]) -> Plan:
    """Turn densities of all parameters or of the multiply-adds into what a cut can be asked for."""
    for target in [target for stage in plan for _, target in stage.prune_at][-1:]:
        turned(target)  # the aim first: an error should name that, not a step on the way to it
    return tuple(
        replace(stage, prune_at=tuple((step, turned(target)) for step, target in stage.prune_at)) for stage in plan
    )


def expected(plan: Plan, kept: Sequence[int | None], prunable: int) -> list[tuple[float | None, float | None]]:
    """Return each stage's density of the prunable parameters while it trains: (at its start, at its end).

    Args:
        plan: the stages.
        kept: what each cut leaves, as `Job` has it.
        prunable: number of prunable parameters.

    Returns:
        One pair a stage; None where it is not known before training.

    Example:
        >>> from prunekit.plan import iterative
        >>> from prunekit.schedule import geometric
        >>> expected(iterative(10, geometric(0.25), rounds=2), [500, 250], 1000)
        [(1.0, 1.0), (0.5, 0.5), (0.25, 0.25)]
    """
    left = iter(kept)
    now: float | None = 1.0
    rows = []
    for stage in plan:
        first = last = now
        for step, _ in stage.prune_at:
            count = next(left)
            now = None if count is None else count / prunable
            last = now if step < stage.end else last
        rows.append((first, last))
    return rows
